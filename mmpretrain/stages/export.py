"""Stage `export`: the last round's encoder as a folder for others, loaded back and compared with the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from mmpretrain.encoders.folder import load_encoder, read_config, save_encoder
from mmpretrain.export import FORMATS, find_format
from mmpretrain.export.avhubert.checkpoint import pretraining_head
from mmpretrain.observe.progress import log
from mmpretrain.observe.wall_time import WallTime
from mmpretrain.parallel.mesh import replicated, shard_batch, whole
from mmpretrain.parallel.processes import on_main
from mmpretrain.records import Batch
from mmpretrain.run.command import ACCEPT_CHANGES, Argument, Command, Given, Option
from mmpretrain.run.layout import CHECKPOINTS, EXPORT, pretrain_name
from mmpretrain.run.run import Run
from mmpretrain.run.stage import read_result
from mmpretrain.stages.pretrain import round_trainer
from mmpretrain.stages.targets import encoder_path
from mmpretrain.train.checkpoint import Checkpointer

CLIPS_TO_COMPARE = 8


def export(run: Run) -> dict[str, Any]:
    """Writes `export/encoder` out of the last round's checkpoint and says how far its features are from it."""
    number = len(run.config.rounds)
    if not number:
        raise ValueError("this recipe has no rounds, hence no encoder to export")
    pretrained = read_result(run.workdir, pretrain_name(number))
    _, lineage = read_config(encoder_path(run, number))
    lineage |= {f"validation {name}": round(pretrained[name], 4) for name in ("masked_accuracy",) if name in pretrained}

    def work(folder: Path, wall: WallTime) -> dict[str, Any]:
        trainer = round_trainer(run, number)
        checkpoints = Checkpointer(run.workdir / pretrain_name(number) / CHECKPOINTS, keep=1_000)
        state, _ = checkpoints.restore(trainer.init(run.config.seed))
        checkpoints.close()
        model = trainer.model(whole(state, run.mesh))
        encoder, head = model.encoder, pretraining_head(model)
        on_main(lambda: save_encoder(folder / "encoder", encoder, lineage=lineage, head=head))
        error = _largest_difference(run, encoder, folder / "encoder")
        log(f"export: {folder / 'encoder'}; largest difference after loading it back: {error:.2g}")
        return {"max_error": error, "path": str(folder / "encoder")}

    return run.stage(EXPORT, {"encoder": lineage["fingerprint"]}, work)


def _largest_difference(run: Run, encoder: nnx.Module, path: Path) -> float:
    """Over the features of a few clips: the trained encoder in batches against the loaded one clip by clip."""
    loaded = load_encoder(path)
    table = run.clips[0].select(np.arange(min(CLIPS_TO_COMPARE, len(run.clips[0]))))
    graphdef, state = nnx.split(encoder)

    def forward(state: nnx.State, batch: Batch) -> tuple[jax.Array, jax.Array, jax.Array]:
        return nnx.merge(graphdef, state, copy=True)(batch), batch.clip_B, batch.valid_BT

    forward = jax.jit(forward, out_shardings=replicated(run.mesh))
    worst, config = 0.0, run.config
    for batch in run.evaluation_batches(table, config.model, batch_frames=config.data.batch_frames):
        features_BTD, clip_B, valid_BT = jax.device_get(forward(state, shard_batch(batch, run.mesh)))
        for row, valid_T, ours_TD in zip(clip_B, valid_BT, features_BTD, strict=True):
            if row < 0:
                continue
            clip = table.load(row)
            view = clip.mouth if config.model.inputs.view == "mouth" else clip.face
            theirs_TD = loaded.features(clip.audio if len(clip.audio) else None, view if len(view) else None)
            worst = max(worst, float(np.abs(theirs_TD - ours_TD[valid_T]).max()))
    return worst


def write_format(name: str, folder: Path, target: Path) -> None:
    """Writes `target`, the exported encoder of `folder` in another format."""
    kind = find_format(name)
    if kind.suffix and target.is_dir():
        raise ValueError(f"--output={target} is a folder; give the name of a file, e.g. {target}/encoder{kind.suffix}")
    for line in kind.write(folder, target):
        log(line)
    log(f"{target}: written, {kind.help}")


def _of_run(given: Given) -> None:
    run, name = given.begin(), given["format"]
    export(run)
    if name in FORMATS:
        target = run.workdir / EXPORT / f"{name}{find_format(name).suffix}"
        on_main(lambda: write_format(name, run.workdir / EXPORT / "encoder", target))


def _of_folder(given: Given) -> None:
    write_format(given["format"], given.path, Path(given["output"]))


COMMAND = Command(
    "export",
    "the last round's encoder as a folder, loaded back and compared",
    _of_run,
    options=(
        Option("format", ("folder", *FORMATS), "another format that is written beside the folder"),
        ACCEPT_CHANGES,
    ),
    examples=(
        "mmpretrain export --config=configs/demo.py --format=avhubert  # writes export/avhubert.pt too",
        "mmpretrain export encoders/base_vox --format=avhubert --output=again.pt  # of any exported encoder",
    ),
    details=tuple(f"--format={name}: {find_format(name).help}." for name in FORMATS),
    instead=Command(
        "export",
        "given an exported encoder: that encoder in another format",
        _of_folder,
        takes=Argument("DIR", "the folder of an exported encoder"),
        options=(
            Option("format", FORMATS, "the format to write", required=True),
            Option("output", str, "the file to write", "FILE", required=True),
        ),
    ),
)
