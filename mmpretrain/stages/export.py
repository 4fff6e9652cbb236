"""Stage `export`: the last round's encoder as a folder for others, loaded back and compared with the checkpoint."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from mmpretrain.config import CorpusConfig
from mmpretrain.data.clips import ClipTable, open_clips
from mmpretrain.data.unreadable import UnreadableClipError
from mmpretrain.downstream.exposure import TEST_SEEN, exposure_of_recipe
from mmpretrain.encoders.card import CARD_FILE, STAYED
from mmpretrain.encoders.encoder import load_encoder
from mmpretrain.encoders.figures import FIGURES_FILE, add_figures, read_figures
from mmpretrain.encoders.folder import read_config, save_encoder
from mmpretrain.encoders.weights import WEIGHTS
from mmpretrain.export import FORMATS, find_format
from mmpretrain.export.avhubert.checkpoint import pretraining_head
from mmpretrain.export.parity import Differences, cases_of, expected, made_up_clips
from mmpretrain.files import SEAL, sealed, whole_folder
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.models.heads import MaskedClusterModel
from mmpretrain.observe.progress import log
from mmpretrain.observe.wall_time import WallTime
from mmpretrain.parallel.mesh import whole
from mmpretrain.parallel.processes import on_main
from mmpretrain.records import Clip
from mmpretrain.run.checkpoint_encoder import encoder_folder
from mmpretrain.run.command import ACCEPT_CHANGES, Argument, Command, Given, Option
from mmpretrain.run.figures import figures_of_tests
from mmpretrain.run.forward import encode
from mmpretrain.run.layout import CHECKPOINTS, EXPORT, PRETRAINED, saved_steps
from mmpretrain.run.round import Round
from mmpretrain.run.run import Run
from mmpretrain.run.source import ENCODER
from mmpretrain.run.stage import read_result
from mmpretrain.train.checkpoint import read

CLIPS_TO_COMPARE = 8


def export(run: Run) -> dict[str, Any]:
    """Writes `export/encoder`: the encoder that the last round left, with its head if it was masked prediction.

    Returns how far its features are from those of the checkpoint that it is of.
    """
    if not run.config.rounds:
        raise ValueError("this recipe has no rounds, hence no encoder to export")
    round_ = run.round(len(run.config.rounds))
    pretrained, lineage = read_result(run.workdir, round_.pretrain_name), round_.encoder.lineage
    lineage |= {f"validation {name}": round(pretrained[name], 4) for name in ("masked_accuracy",) if name in pretrained}

    if found := exposure_of_recipe(run, round_.encoder.training_data):
        lineage |= {f"{TEST_SEEN}, {found[0]}": str(found[1])}

    def work(folder: Path, wall: WallTime) -> dict[str, Any]:
        loaded = round_.encoder.load()
        encoder, crop_size = loaded.module, loaded.crop_size
        trained = _trained(round_, encoder)
        head = pretraining_head(trained) if isinstance(trained, MaskedClusterModel) else None
        data = round_.encoder.training_data
        more = dict(training_data=data, head=head, crop_size=crop_size)
        on_main(lambda: save_encoder(folder / ENCODER, encoder, lineage=lineage, **more))
        error = _largest_difference(run, trained.encoder, folder / ENCODER)
        log(f"export: {folder / ENCODER}; largest difference after loading it back: {error:.2g}")
        return {"max_error": error, "path": str(folder / ENCODER)}

    result = run.stage(EXPORT, {"encoder": round_.encoder.fingerprint}, work)
    on_main(lambda: add_figures(run.workdir / EXPORT / ENCODER, _figures(round_)))
    return result


def _figures(round_: Round) -> dict[str, str]:
    """Of the round, and of the tests of the run, if it is this encoder that was tested."""
    run, figures = round_.run, read_figures(round_.encoder.path)
    tested = run.config.finetune is not None and run.config.finetune.encoder == "last_round"
    return figures | (figures_of_tests(run.workdir, PRETRAINED) if tested else {})


def _trained(round_: Round, encoder: AVEncoder) -> nnx.Module:
    """The network that the round was trained to, from the checkpoint of the very step that its encoder is of.

    Raises FileNotFoundError or ValueError if there is no such checkpoint, it is damaged, or of another encoder.
    """
    run, checkpoints = round_.run, round_.run.workdir / round_.pretrain_name / CHECKPOINTS
    step = round_.encoder.lineage["steps"]
    remedy = f"{round_.encoder.path} is the encoder by itself, or remove {checkpoints.parent} and train the round anew"
    if step not in on_main(lambda: saved_steps(checkpoints)):
        raise FileNotFoundError(
            f"{checkpoints} has no checkpoint of step {step}, with which export compares what it writes; {remedy}"
        )
    try:
        state = read(checkpoints, step, round_.trainer.init(run.config.seed))
    except ValueError as error:
        raise ValueError(f"{error}; export compares what it writes with it; {remedy}") from error
    trained = round_.trainer.model(whole(state, run.mesh))
    ours, theirs = (jax.tree.leaves(nnx.state(each, WEIGHTS)) for each in (encoder, trained.encoder))
    if not all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True)):
        raise ValueError(
            f"{round_.encoder.path} has other weights than the checkpoint of its step {step} in {checkpoints}: one of "
            f"the two is of another run or step; remove {checkpoints.parent} and train the round anew"
        )
    return trained


def _largest_difference(run: Run, trained: AVEncoder, path: Path) -> float:
    """Over the features of a few clips: the trained encoder in batches against the loaded one clip by clip."""
    loaded, worst = load_encoder(path), 0.0
    table = run.clips[0].select(np.arange(min(CLIPS_TO_COMPARE, len(run.clips[0]))))
    for row, num_frames, ours_TD in encode(run, trained, table, everywhere=True):
        if not num_frames:  # it cannot be read
            continue
        theirs_TD = loaded.features_of(table.load(row))
        worst = max(worst, float(np.abs(theirs_TD - ours_TD[:num_frames]).max()))
    return worst


def write_format(name: str, folder: Path, target: Path, clips: Sequence[Clip]) -> None:
    """Writes `target`, the exported encoder of `folder` in another format, and compares the two on the clips."""
    kind = find_format(name)
    for line in kind.write(folder, target, clips):
        log(line)
    log(f"{target}: written, {kind.help}")


def write_copy(folder: Path, target: Path, clips: Sequence[Clip]) -> None:
    """Writes `target`, a copy of an encoder's folder, and compares the two on the clips."""
    encoder, differences = load_encoder(folder), Differences()
    with whole_folder(target) as draft:
        for name in (*sealed(folder), SEAL, CARD_FILE, FIGURES_FILE):  # the card may have been taken away
            if (folder / name).exists():
                shutil.copyfile(folder / name, draft / name)
        copy = load_encoder(draft)
        for case in cases_of(clips, encoder.config):
            differences.add(case.name, expected(encoder, case), expected(copy, case))
        lines = differences.lines()
    log(f"{target}: written, the folder of an encoder; {lines[0]}")


def _of_run(given: Given) -> None:
    run, name = given.begin(), given["format"]
    export(run)
    if name in FORMATS:
        target = run.workdir / EXPORT / f"{name}{find_format(name).suffix}"
        on_main(lambda: write_format(name, run.workdir / EXPORT / ENCODER, target, _some(run.clips[0])))


def _check_output(name: str, target: Path) -> None:
    """Raises ValueError where something is there, of whatever kind: it would give way, with all that is in it."""
    suffix = find_format(name).suffix if name in FORMATS else ""
    if suffix and target.is_dir():
        raise ValueError(f"--output={target} is a folder; give the name of a file, e.g. {target}/encoder{suffix}")
    if target.exists():
        raise ValueError(f"--output={target} is there already; give another name, or remove it")


def _of_source(given: Given) -> None:
    name, corpus, target = given["format"], given["clips"], Path(given["output"])
    _check_output(name, target)
    with tempfile.TemporaryDirectory() as scratch:
        folder = encoder_folder(given.path, Path(scratch))
        model, lineage = read_config(folder)
        clips = _some(open_clips([CorpusConfig(corpus)])) if corpus else made_up_clips(model)
        if name in FORMATS:
            write_format(name, folder, target, clips)
        else:
            write_copy(folder, target, clips)
    if STAYED in lineage:
        log(f"{target}: {STAYED}: {lineage[STAYED]}; `mmpretrain evaluate` of its run asks them")
    if not corpus:
        log("compared on made-up clips; --clips=CORPUS compares on real ones")


def _some(table: ClipTable) -> list[Clip]:
    """A few clips, from all over the table, that can be read."""
    clips = []
    for row in np.unique(np.linspace(0, len(table) - 1, CLIPS_TO_COMPARE).astype(int)):
        try:
            clips.append(table.load(int(row)))
        except UnreadableClipError as error:
            table.unreadable.add(error)
    return clips


COMMAND = Command(
    "export",
    "the last round's encoder as a folder, loaded back and compared",
    _of_run,
    options=(
        Option("format", ("folder", *FORMATS), "the format to write; of a run it is beside the folder, always written"),
        ACCEPT_CHANGES,
    ),
    examples=(
        "mmpretrain export --config=demo --format=avhubert  # export/avhubert.pt too",
        "mmpretrain export encoders/base_vox --format=avhubert --output=again.pt  # of any exported encoder",
        "mmpretrain export encoders/base_vox --format=transformers --output=base_vox_hf --clips=data/ravdess",
        "mmpretrain export runs/demo/finetune/pretrained/fold1 --format=onnx --output=demo_onnx  # with its head",
        "mmpretrain export gs://BUCKET/demo/round2/pretrain/checkpoints/400 --format=folder --output=at_400",
    ),
    details=tuple(f"--format={name}: {find_format(name).help}." for name in FORMATS),
    instead=Command(
        "export",
        "given an encoder, a run, a stage or a checkpoint: that encoder in a format",
        _of_source,
        takes=Argument(
            "SOURCE",
            "the folder of an encoder, a run or a stage, or STAGE/checkpoints/STEP; gs:// and s3:// too",
            addresses=True,
        ),
        options=(
            Option("format", ("folder", *FORMATS), "the format to write", required=True),
            Option("output", str, "the file or folder to write", "PATH", required=True),
            Option("clips", str, "a prepared corpus, on whose clips the two are compared", "CORPUS"),
        ),
    ),
)
