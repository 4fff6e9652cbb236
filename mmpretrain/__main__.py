"""The command: `mmpretrain STAGE --config=FILE --config.a.b=value`."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

STAGES = {
    "run": "everything below, in order; finished stages are passed over",
    "refine": "all rounds: targets, pretrain, targets, pretrain, ...",
    "targets": "the targets of one round (--round=N)",
    "pretrain": "the pretraining of one round (--round=N)",
    "finetune": "emotion classifiers on the folds of the recipe's protocol",
    "evaluate": "tests the fine-tuned classifiers, beside a plain baseline",
    "export": "the last round's encoder as a folder, loaded back and compared",
    "report": "summary.json and report.html of what is there so far",
}

USAGE = """mmpretrain STAGE --config=FILE [--round=N] [--config.FIELD=VALUE ...]

Pretrains audio-visual encoders by masked cluster prediction, fine-tunes and exports them. A run is a folder
(--config.workdir); a command that was interrupted is simply given again and continues.

stages:
{stages}

examples:
  mmpretrain run --config=configs/demo.py
  mmpretrain refine --config=configs/pretrain/small_real.py --config.workdir=runs/mine --config.seed=7
  mmpretrain pretrain --round=2 --config=configs/demo.py --config.rounds[1].num_steps=500

Any field of the recipe can be set as --config.FIELD=VALUE; `mmpretrain/config.py` lists them with their meaning.
Prepare clips first: `python -m data_prep --help`.
"""


def main(argv: list[str] | None = None) -> None:
    """Runs one stage. Exits with 2 for what a user can mend, 1 for a loss that is no number, 130 when interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] == "help" or {"-h", "--help"} & set(argv):
        print(USAGE.format(stages="\n".join(f"  {name:10}{what}" for name, what in STAGES.items())), end="")
        sys.exit(0 if argv else 2)
    stage, *arguments = argv
    try:
        if stage not in STAGES:
            raise ValueError(f"unknown stage {stage!r}; stages are {', '.join(STAGES)}")
        config, number = _parse(arguments)
        _run(stage, config, number)
    except KeyboardInterrupt:
        print("mmpretrain: interrupted; the same command continues", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"mmpretrain {stage}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1 if isinstance(error, FloatingPointError) else 2)


def _parse(arguments: list[str]):
    """The recipe with its overrides, and --round. Raises ValueError for anything that is not right."""
    from absl import flags
    from ml_collections import config_flags

    sys.path.insert(0, "")  # a recipe may import another one of the current folder
    for path in (argument.removeprefix("--config=") for argument in arguments if argument.startswith("--config=")):
        if not Path(path.split(":")[0]).is_file():
            raise FileNotFoundError(f"--config={path}: there is no such file; recipes are under configs/")
    values = flags.FlagValues()
    argv = ["mmpretrain", *arguments]
    holder = config_flags.DEFINE_config_file("config", None, "the recipe", flag_values=values, sys_argv=argv)
    round_ = flags.DEFINE_integer("round", None, "for targets and pretrain", lower_bound=1, flag_values=values)
    try:
        rest = values(argv)[1:]
    except (flags.Error, LookupError, AttributeError, TypeError, ImportError, SyntaxError, OSError) as error:
        raise ValueError(f"{_explain(error)} (in: {' '.join(arguments)})") from error
    if rest:
        raise ValueError(f"unexpected argument {rest[0]!r}; overrides look like --config.seed=7")
    if holder.value is None:
        raise ValueError("no recipe; give one with --config=FILE, e.g. --config=configs/demo.py")
    return holder.value, round_.value


def _explain(error: Exception) -> str:
    from mmpretrain import config

    for wording in (r"Field (?P<field>\w+) not found on dataclass <class '.*\.(?P<kind>\w+)'>",
                    r"Attribute <class '.*\.(?P<kind>\w+)'>\.(?P<field>\w+) does not exist"):  # fmt: skip
        if unknown := re.search(wording, str(error)):
            known = ", ".join(field.name for field in dataclasses.fields(getattr(config, unknown["kind"])))
            return f"unknown field {unknown['field']!r} of {unknown['kind']}; known are {known}"
    return f"{error}; the fields and their types are in mmpretrain/config.py"


def _run(stage: str, config, number: int | None) -> None:
    from mmpretrain.stages import run as stages
    from mmpretrain.stages.context import Run

    if stage in ("targets", "pretrain"):
        if number is None or number > len(config.rounds):
            raise ValueError(f"--round={number}; {stage} needs --round=1 to --round={len(config.rounds)}")
    elif number is not None:
        raise ValueError(f"--round={number} is for targets and pretrain, not for {stage}")
    run = Run(config)
    run.announce()
    stages.run_stages(stage, run, number)


if __name__ == "__main__":
    main()
