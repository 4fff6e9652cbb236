"""What a run's folder looks like from outside: its stages, what state each is in, and the figures of its rounds.

Reads files only and does without JAX.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpretrain.config import FinetuneConfig, RunConfig, from_dict
from mmpretrain.files import DamagedError, read_json
from mmpretrain.observe.wall_time import is_number, read_wall_time, running_sec, shares
from mmpretrain.report.tables import duration, percent, text_table
from mmpretrain.run.sealed import check_sealed
from mmpretrain.run.stage import RECIPE_FILE, WALL_TIME_FILE, known_result, read_result

CONFIG_FILE = "config.json"
WRITTEN_ANEW = "the command of the run, given again, writes it anew"
METRICS_FILE = "metrics.jsonl"
TENSORBOARD = "tensorboard"
CHECKPOINTS = "checkpoints"
EVALUATION, LABEL_EFFICIENCY, EXPORT = "evaluation", "label_efficiency", "export"
RESULTS_FILE = "results.json"  # of a cross-validation
UNITS = "units"
PRETRAINED, SCRATCH = "pretrained", "scratch"
PROBE_FIELDS = (
    "ua", "layer", "ua_by_layer", "chance_ua", "clips", "training_clips", "protocol", "fold", "untrained",
    "over_untrained",
)  # fmt: skip
OF_LAYERS = ("ua", "layer", "ua_by_layer")  # what a summary says of the untrained encoder


def targets_name(number: int) -> str:
    return f"round{number}/targets"


def pretrain_name(number: int) -> str:
    return f"round{number}/pretrain"


def fold_name(variant: str, fold: int | str) -> str:
    return f"finetune/{variant}/fold{fold}"


def health_file(workdir: Path, number: int) -> Path:
    return workdir / f"round{number}" / "health.json"


def read_health(workdir: Path, number: int) -> dict[str, Any]:
    """What was measured of a round's encoder: `of`, `chance_accuracy`, `probe`.

    `probe.untrained` is the same of the network before any step, with what it was measured of and its answer to each
    clip; `probe.over_untrained` is how far the round's encoder is above it in UA, see `evaluation.comparison.compare`.

    Empty if nothing was, or the file is damaged: then it is measured again.
    """
    try:
        saved = read_json(health_file(workdir, number), fields=("of", "chance_accuracy", "probe"))
        check_sealed(health_file(workdir, number))
    except (FileNotFoundError, DamagedError):
        return {}
    chances, probe = saved.get("chance_accuracy"), saved.get("probe")
    fits = isinstance(chances, list) and all(chance is None or is_number(chance) for chance in chances)
    fits &= probe is None or (isinstance(probe, dict) and probe.keys() >= set(PROBE_FIELDS))
    return saved if fits else {}


def round_names(num_rounds: int) -> list[str]:
    """The stages of all rounds in order."""
    return [name(number) for number in range(1, num_rounds + 1) for name in (targets_name, pretrain_name)]


def stages_by_command(config: RunConfig) -> dict[str, list[str]]:
    """The stages of a recipe in order, by the command that does them: all that `mmpretrain run` goes through."""
    stages = {}
    if config.rounds:
        stages["refine"] = round_names(len(config.rounds))
    if config.finetune is not None:
        kinds = variants(config.finetune.encoder, config.finetune.compare_from_scratch)
        stages["finetune"] = [fold_name(kind, fold) for kind in kinds for fold in folds_of(config.finetune)]
        stages["evaluate"] = [EVALUATION]
        if config.label_efficiency.shares:
            stages["label-efficiency"] = [LABEL_EFFICIENCY]
    if config.units is not None:
        stages["units"] = [UNITS]
    if config.rounds:
        stages["export"] = [EXPORT]
    return stages


def stage_names(config: RunConfig) -> list[str]:
    """The stages of a recipe in order."""
    return [name for names in stages_by_command(config).values() for name in names]


def training_stages(config: RunConfig) -> list[str]:
    """Those that train by steps, in order."""
    by_steps = config.finetune is not None and config.finetune.classifier == "trained"
    names = stage_names(config)
    return [name for name in names if (by_steps and name.startswith("finetune/")) or name.endswith("/pretrain")]


def folds_of(finetune: FinetuneConfig) -> tuple[int, ...]:
    """The folds to fine-tune on; none given: all of the protocol."""
    if finetune.folds:
        return finetune.folds
    from mmpretrain.evaluation.protocols import get_protocol  # slow to import, and seldom needed

    return tuple(range(1, get_protocol(finetune.protocol).num_folds + 1))


def variants(encoder: str, compare_from_scratch: bool) -> tuple[str, ...]:
    """What is fine-tuned: the pretrained encoder, the same network from random weights, or both."""
    if encoder == "none":
        return (SCRATCH,)
    return (PRETRAINED, SCRATCH) if compare_from_scratch else (PRETRAINED,)


def saved_steps(checkpoints: Path) -> list[int]:
    """The steps of the whole checkpoints of a folder that may not be there, from its names alone, in order."""
    return sorted(int(folder.name) for folder in checkpoints.glob("*") if folder.name.isdigit())


def newest_step(checkpoints: Path) -> int | None:
    return max(saved_steps(checkpoints), default=None)


def walk_table(workdir: Path, names: Iterable[str], running: str = "") -> str:
    """The stages, each with its state, the time it has taken and its goodput, as text. running: the one that begins."""
    rows = []
    for name in names:
        wall = read_wall_time(workdir / name / WALL_TIME_FILE)
        trains = wall is not None and wall["seconds"]["useful_steps"]
        goodput = percent(shares(wall["seconds"])["useful_steps"]) if trains else "-"
        rows.append([name, *_state(workdir, name, name == running), goodput])
    return text_table((["stage", "state", "time", "goodput"], rows))


def state_of(workdir: Path, name: str) -> str:
    return _state(workdir, name, running=False)[0]


def _state(workdir: Path, name: str, running: bool) -> tuple[str, str]:
    folder = workdir / name
    if (result := known_result(workdir, name)) is not None:
        return "done", duration(result["wall_time_sec"])
    wall, step = read_wall_time(folder / WALL_TIME_FILE), newest_step(folder / CHECKPOINTS)
    time = "-" if wall is None else duration(running_sec(wall["seconds"]))
    saved = f", step {step} saved" if step else ""
    if running:
        return "running" + saved, time
    return ("partly done" + saved if (folder / RECIPE_FILE).exists() else "to do"), time


def round_figures(workdir: Path, last: int) -> list[dict[str, Any]]:
    """What is known of each of the rounds up to `last` that is pretrained."""
    return [
        _figures(workdir, number)
        for number in range(1, last + 1)
        if all(known_result(workdir, name(number)) is not None for name in (targets_name, pretrain_name))
    ]


def _figures(workdir: Path, number: int) -> dict[str, Any]:
    """What is known of a round's targets and of its encoder.

    Figures of one codebook only are those of the first; accuracies and loss are over all codebooks.
    """
    targets, trained = (read_result(workdir, name(number)) for name in (targets_name, pretrain_name))
    saved, unknown = read_health(workdir, number), [None] * len(targets["codebooks"])
    chances = saved.get("chance_accuracy", unknown)
    chances = chances if len(chances) == len(unknown) else unknown
    codebooks: Sequence[Mapping[str, Any]] = [
        {name: codebook["quality"].get(name) for name in ("pnmi", "purity", "mean_run_frames")}
        | {name: codebook[name] for name in ("clusters_used", "num_clusters", "entropy_bits")}
        | {name: trained.get(f"{name}_{i}") for name in ("masked_accuracy", "unmasked_accuracy")}
        | {"chance_accuracy": chance}
        for i, (codebook, chance) in enumerate(zip(targets["codebooks"], chances, strict=True), start=1)
    ]
    whole = {name: trained.get(name) for name in ("masked_accuracy", "unmasked_accuracy", "loss")}
    several = {"codebooks": codebooks} if len(codebooks) > 1 else {}
    return {"round": number} | codebooks[0] | whole | several | _probe_figures(saved.get("probe"))


def _probe_figures(probe: Mapping[str, Any] | None) -> dict[str, Any]:
    if probe is None:
        return {"probe": None, "untrained_probe_ua": None}
    untrained = {name: probe["untrained"][name] for name in OF_LAYERS}
    return {"probe": {**probe, "untrained": untrained}, "untrained_probe_ua": untrained["ua"]}


def runs_below(folder: Path) -> list[Path]:
    """The runs in the folder of another, of its folds, say, in order of their paths. Stages are not looked into."""
    found = []
    for path, folders, files in os.walk(folder):
        of_stage = RECIPE_FILE in files
        folders[:] = [] if of_stage else sorted(folders)
        if CONFIG_FILE in files and not of_stage and Path(path) != folder:
            with contextlib.suppress(ValueError):  # an exported encoder's, or one of another version
                recipe_of_run(Path(path))
                found.append(Path(path))
    return sorted(found)


def recipe_of_run(folder: Path) -> RunConfig:
    """The recipe that a run was last given, for the run where it lies now.

    Raises FileNotFoundError or ValueError for a folder that is no run's.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder; a run's is what --config.workdir names")
    if not (folder / CONFIG_FILE).exists():
        raise ValueError(
            f"{folder} is no run: it has no {CONFIG_FILE}, which every run begins with; a run's folder is what "
            f"--config.workdir names"
        )
    try:
        if not (tree := read_json(folder / CONFIG_FILE, remedy=WRITTEN_ANEW)):
            raise DamagedError(f"{folder / CONFIG_FILE} is damaged (it is empty); {WRITTEN_ANEW}")
        check_sealed(folder / CONFIG_FILE, remedy=WRITTEN_ANEW)
        config = from_dict(RunConfig, tree)
    except DamagedError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ValueError(
            f"{folder / CONFIG_FILE} is no recipe of this version of mmpretrain ({error}); look at the run with the "
            f"version that wrote it"
        ) from error
    config.workdir = str(folder)
    return config
