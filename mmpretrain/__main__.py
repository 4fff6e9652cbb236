"""The command: `mmpretrain STAGE --config=FILE --config.a.b=value`, and a few that take files instead of a recipe."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

from mmpretrain.config.checks import check
from mmpretrain.parallel import processes, stopping
from mmpretrain.run.collapse import Collapsed

STAGES = {
    "run": "everything below, in order; finished stages are passed over",
    "refine": "all rounds, or --rounds=2-3: targets, pretrain, targets, pretrain, ...",
    "targets": "the targets of one round (--round=N)",
    "targets inspect": "whether a store of targets is any good (STORE, no recipe)",
    "pretrain": "the pretraining of one round (--round=N)",
    "finetune": "emotion classifiers on the folds of the recipe's protocol",
    "evaluate": "tests the fine-tuned classifiers, beside a plain baseline",
    "export": "the last round's encoder as a folder, loaded back and compared",
    "report": "summary.json and report.html of what is there so far",
    "status": "how a run is doing, from outside: progress, rates, time to go, health (status RUN, no recipe)",
    "plan": "what the last round needs of the chips of --topology=CHIP:SHAPE, and how long; runs nothing",
    "replay": "one step of a training stage again, alone: its clips, and norms by layer (RUN --step=S, no recipe)",
    "import-avhubert": "the encoder of an AV-HuBERT checkpoint as such a folder (FILE.pt --output=DIR, no recipe)",
}

# The stages that take an option, besides --config, which all but status, import-avhubert, inspect and replay take.
OPTIONS = {
    "round": ("targets", "pretrain"),
    "rounds": ("refine",),
    "profile": ("run", "refine", "pretrain", "finetune"),
    "stage": ("replay",),
    "step": ("replay",),
    "topology": ("plan",),
    "format": ("export",),
    "output": ("export", "import-avhubert", "targets inspect"),
    "corpus": ("targets inspect",),
    "alignments": ("targets inspect",),
}

USAGE = """mmpretrain STAGE --config=FILE [--round=N] [--config.FIELD=VALUE ...]

Pretrains audio-visual encoders by masked cluster prediction, fine-tunes and exports them. A run is a folder
(--config.workdir); a command that was interrupted is simply given again and continues.

stages:
{stages}

examples:
  mmpretrain run --config=configs/demo.py
  mmpretrain refine --config=configs/pretrain/small_real.py --config.workdir=runs/mine --config.seed=7
  mmpretrain refine --rounds=2 --config=configs/demo.py '--config.rounds[1].encoder=encoders/base_vox'
  mmpretrain targets inspect runs/mine/round2/targets/codebook1/store --output=quality --alignments=words.csv
  mmpretrain pretrain --round=2 --config=configs/demo.py --config.rounds[1].num_steps=500
  mmpretrain status runs/mine                                                 # at any time, from anywhere
  mmpretrain refine --config=configs/demo.py --profile=100-105                # traces these steps of each round
  mmpretrain plan --topology=v5e:16x16 --config=configs/pretrain/avhubert_base_lrs3.py   # no TPU needed
  mmpretrain replay runs/mine --step=437 --stage=round2/pretrain              # default: the last that has checkpoints
  mmpretrain import-avhubert base_vox_iter5.pt --output=encoders/base_vox
  mmpretrain finetune --config=configs/demo.py --config.finetune.encoder=encoders/base_vox
  mmpretrain export --config=configs/demo.py --format=avhubert                # writes export/avhubert.pt too
  mmpretrain export encoders/base_vox --format=avhubert --output=again.pt     # of any exported encoder

import-avhubert runs nothing that is in the file, and needs neither PyTorch nor fairseq. Public checkpoints have
licences of their own, which you must accept to use them.

refine shows a table of its stages and, after each round, its health. It needs no earlier round where the first that it
walks takes its targets from the clips or, as in the third example, from a named encoder: any exported one.

While a run goes on, `mmpretrain status RUN` says how it is doing, and `touch RUN/profile` traces its next five steps,
as --profile=FIRST-LAST does those steps of every training stage (docs/watching.md).

A run of several processes is the same command in each, with --coordinator=HOST:PORT --num_processes=N --process_id=I
(HOST:PORT is process 0's) or with these in MMPRETRAIN_COORDINATOR, MMPRETRAIN_NUM_PROCESSES, MMPRETRAIN_PROCESS_ID;
under srun or mpirun they are found out. SIGTERM and SIGUSR1 make a run save and leave with exit code 75: give the same
command again. Other codes: 2 a mistake in the command or its files, 3 a loss that is no number or explodes (health.*),
4 a collapsed round, 130 Ctrl-C. A run goes on with another recipe only where it computes the same, or with
--accept_changes.

Any field of the recipe can be set as --config.FIELD=VALUE; `mmpretrain/config/tree.py` lists them with their meaning.
Prepare clips first: `python -m data_prep --help`.
"""


def main(argv: list[str] | None = None) -> None:
    """Runs one stage.

    Exits with 2 for what a user can mend, 3 for a loss that is no number or explodes, 4 for a collapsed round, 75 when
    stopped by SIGTERM or SIGUSR1 and saved, 130 when interrupted.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] == "help" or {"-h", "--help"} & set(argv):
        print(USAGE.format(stages="\n".join(f"  {name:17}{what}" for name, what in STAGES.items())), end="")
        sys.exit(0 if argv else 2)
    stage, *arguments = ["targets inspect", *argv[2:]] if argv[:2] == ["targets", "inspect"] else argv
    try:
        with stopping.listening():
            if stage not in STAGES:
                raise ValueError(f"unknown stage {stage!r}; stages are {', '.join(STAGES)}")
            given = _parse(arguments)
            if stage == "replay":
                given.config = _recipe_to_replay(given)
            place = processes.find_place(given.coordinator, given.num_processes, given.process_id, os.environ)
            if given.config is not None:
                check(given.config)
                processes.initialize(place, lost_after_sec=given.config.parallel.lost_after_sec)
            with processes.together(_end):
                _run(stage, given)
    except (Exception, KeyboardInterrupt) as error:
        code, line = _end(error)
        if code == processes.BUG_CODE:
            raise
        print(f"mmpretrain {stage}: {line}", file=sys.stderr)
        sys.exit(code)


def _end(error: BaseException) -> tuple[int, str]:
    """The exit code of what ended a run, and a line about it."""
    match error:
        case KeyboardInterrupt():
            return 130, "interrupted; the same command continues"
        case stopping.Stopped():
            return processes.STOPPED_CODE, "stopped and saved; the same command continues"
        case FloatingPointError():
            return 3, " ".join(str(error).split())
        case Collapsed():
            return 4, " ".join(str(error).split())
        case ValueError() | OSError():
            return 2, " ".join(str(error).split())
    return processes.BUG_CODE, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _parse(arguments: list[str]) -> SimpleNamespace:
    """The recipe with its overrides, the options, and `paths`, the rest. Raises ValueError for what is not right."""
    from absl import flags
    from ml_collections import config_flags

    sys.path.insert(0, "")  # a recipe may import another one of the current folder
    for path in (argument.removeprefix("--config=") for argument in arguments if argument.startswith("--config=")):
        if not Path(path.split(":")[0]).is_file():
            raise FileNotFoundError(f"--config={path}: there is no such file; recipes are under configs/")
    values = flags.FlagValues()
    values.set_gnu_getopt()  # options may follow a path
    # The recipe first, wherever it was given: overrides are of its fields.
    argv = ["mmpretrain", *sorted(arguments, key=lambda argument: not argument.startswith("--config="))]
    holder = config_flags.DEFINE_config_file("config", None, "the recipe", flag_values=values, sys_argv=argv)
    options = {
        "round": flags.DEFINE_integer("round", None, "the round, from 1", lower_bound=1, flag_values=values),
        "rounds": flags.DEFINE_string("rounds", None, "those to walk, e.g. 2 or 2-3", flag_values=values),
        "profile": flags.DEFINE_string("profile", None, "steps to trace, e.g. 100-105", flag_values=values),
        "stage": flags.DEFINE_string("stage", None, "e.g. round2/pretrain", flag_values=values),
        "step": flags.DEFINE_integer("step", None, "of a training stage, from 1", lower_bound=1, flag_values=values),
        "topology": flags.DEFINE_string("topology", None, "e.g. v5e:16x16 or h100:8", flag_values=values),
        "format": flags.DEFINE_enum("format", None, ["folder", "avhubert"], "of the export", flag_values=values),
        "output": flags.DEFINE_string("output", None, "file or folder to write", flag_values=values),
        "accept_changes": flags.DEFINE_bool("accept_changes", False, "of the recipe, in a run", flag_values=values),
        "coordinator": flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0", flag_values=values),
        "num_processes": flags.DEFINE_integer("num_processes", None, "of the run", flag_values=values),
        "process_id": flags.DEFINE_integer("process_id", None, "of this process", flag_values=values),
        "corpus": flags.DEFINE_multi_string("corpus", None, "a prepared corpus", flag_values=values),
        "alignments": flags.DEFINE_string("alignments", None, "CSV of words and times", flag_values=values),
    }
    try:
        paths = values(argv)[1:]
    except (flags.Error, LookupError, AttributeError, TypeError, ImportError, SyntaxError, OSError) as error:
        raise ValueError(f"{_explain(error)} (in: {' '.join(arguments)})") from error
    return SimpleNamespace(config=holder.value, paths=paths, **{name: flag.value for name, flag in options.items()})


def _explain(error: Exception) -> str:
    from mmpretrain import config

    for wording in (r"Field (?P<field>\w+) not found on dataclass <class '.*\.(?P<kind>\w+)'>",
                    r"Attribute <class '.*\.(?P<kind>\w+)'>\.(?P<field>\w+) does not exist"):  # fmt: skip
        if unknown := re.search(wording, str(error)):
            known = ", ".join(field.name for field in dataclasses.fields(getattr(config, unknown["kind"])))
            return f"unknown field {unknown['field']!r} of {unknown['kind']}; known are {known}"
    return f"{error}; the fields and their types are in mmpretrain/config/tree.py"


def _run(stage: str, given: SimpleNamespace) -> None:
    for option, takers in OPTIONS.items():
        if (value := getattr(given, option)) is not None and stage not in takers:
            raise ValueError(f"--{option}={value} is for {' and '.join(takers)}, not for {stage}")
    if stage == "import-avhubert" or (stage == "export" and given.paths):
        _convert(stage, given)
        return
    if stage == "targets inspect":
        _inspect(given)
        return
    if stage == "status":
        _status(given)
        return
    if stage == "replay":
        from mmpretrain.run.run import Run
        from mmpretrain.tools.replay import replay

        replay(Run(given.config), given.step, given.stage)
        return
    if given.paths:
        raise ValueError(f"unexpected argument {given.paths[0]!r}; overrides look like --config.seed=7")
    if given.config is None:
        raise ValueError("no recipe; give one with --config=FILE, e.g. --config=configs/demo.py")
    if given.output is not None:
        raise ValueError(f"--output={given.output}: with a recipe, everything is written under --config.workdir")
    rounds = len(given.config.rounds)
    if stage in OPTIONS["round"] and (given.round is None or given.round > rounds):
        raise ValueError(f"--round={given.round}; {stage} needs --round=1 to --round={rounds}")

    walked = None if given.rounds is None else _rounds(given.rounds, rounds)

    if stage == "plan":
        from mmpretrain.tools.plan import plan

        print(plan(given.config, given.topology))
        return

    from mmpretrain.run.run import Run
    from mmpretrain.stages import run as stages
    from mmpretrain.tools import convert

    profile = None if given.profile is None else _steps(given.profile)
    run = Run(given.config, accept_changes=given.accept_changes, profile=profile)
    run.announce()
    stages.run_stages(stage, run, given.round, walked)
    if given.format == "avhubert":
        convert.export_avhubert(run.workdir / "export" / "encoder", run.workdir / "export" / "avhubert.pt")


def _rounds(text: str, count: int) -> range:
    """The rounds that "2" or "2-3" stands for, of `count`."""
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last <= count:
        raise ValueError(f"--rounds={text}: a round or the first and last of some, of 1 to {count}, e.g. --rounds=2-3")
    return range(first, last + 1)


def _steps(text: str) -> range:
    """The steps that "100-105" or "100" stands for."""
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last:
        raise ValueError(f"--profile={text}: a step or the first and last of some, e.g. --profile=100-105")
    return range(first, last + 1)


def _convert(stage: str, given: SimpleNamespace) -> None:
    """The commands that take a file or folder instead of a recipe."""
    importing = stage == "import-avhubert"
    usage = "import-avhubert FILE.pt --output=DIR" if importing else "export DIR --format=avhubert --output=FILE.pt"
    whole = len(given.paths) == 1 and given.output and (importing or given.format == "avhubert")
    if not whole or given.config is not None:
        raise ValueError(f"the command is `mmpretrain {usage}`, without a recipe")

    from mmpretrain.tools import convert

    source, target = Path(given.paths[0]), Path(given.output)
    (convert.import_avhubert if importing else convert.export_avhubert)(source, target)


def _recipe_to_replay(given: SimpleNamespace):
    """The recipe that the named run keeps."""
    if len(given.paths) != 1 or given.step is None or given.config is not None:
        raise ValueError("the command is `mmpretrain replay RUN --step=S [--stage=round2/pretrain]`, without a recipe")

    from mmpretrain.tools.replay import recipe_of_run

    return recipe_of_run(given.paths[0])


def _inspect(given: SimpleNamespace) -> None:
    if len(given.paths) != 1 or given.config is not None:
        raise ValueError(
            "the command is `mmpretrain targets inspect STORE [--output=DIR] [--corpus=DIR] [--alignments=FILE.csv]`, "
            "without a recipe"
        )

    from mmpretrain.tools.inspect import inspect_targets

    alignments, output = (None if path is None else Path(path) for path in (given.alignments, given.output))
    inspect_targets(Path(given.paths[0]), given.corpus or (), alignments, output)


def _status(given: SimpleNamespace) -> None:
    if len(given.paths) != 1 or given.config is not None:
        raise ValueError("the command is `mmpretrain status RUN`, without a recipe; RUN is what --config.workdir names")

    from mmpretrain.tools.status import status

    print(status(Path(given.paths[0])))


if __name__ == "__main__":
    main()
