"""`mmpretrain extract ENCODER SOURCE --output=DIR`: what an encoder makes of a corpus or of a folder of raw clips."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmpretrain.config import CorpusConfig, DataConfig, RunConfig
from mmpretrain.data.clips import ClipTable, open_clips
from mmpretrain.encoders.encoder import load_encoder
from mmpretrain.encoders.finite import finite
from mmpretrain.encoders.folder import read_config, read_crop_size
from mmpretrain.encoders.weights import WEIGHTS_FILE
from mmpretrain.files import present_folder, read_json, sealed, write_json, write_text
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.observe.progress import Progress, log
from mmpretrain.parallel.processes import on_main
from mmpretrain.predict.feature_files import FORMATS, check_format, write_features
from mmpretrain.records import CORPUS_FILE, Batch
from mmpretrain.run.base import RunBase
from mmpretrain.run.command import Argument, Command, Given, Option
from mmpretrain.run.forward import Forward, deviation, forward_of, moments
from mmpretrain.run.owning import owned
from mmpretrain.run.preparing import run_preparation
from mmpretrain.run.source import SourceEncoder

POOLINGS = ("none", "mean", "statistics")
ALL = "all"
REQUEST_FILE, INDEX_FILE, PREPARED = "extract.json", "index.csv", "prepared"
FILE_BYTES = 256e6  # of features in one file, which is what a stopped command loses at most
BATCH_FRAMES = 8_000


@dataclasses.dataclass(frozen=True)
class Wanted:
    """layer: as `Encoder.features` has it, or "all": 0 to L. pooling: one of `POOLINGS`. format: one of `FORMATS`."""

    layer: int | str | None
    pooling: str
    format: str

    def layers(self, encoder: AVEncoder, batch: Batch) -> jax.Array:
        """[K, B, T, D], of all layers or of one."""
        if self.layer == ALL:
            return encoder.all_layers(encoder.embed_batch(batch), batch.valid_BT)
        return encoder(batch, layer=self.layer)[None]

    def made(self, encoder: AVEncoder, batch: Batch) -> Any:
        """Of a batch: [B, T, K, D], or where they are pooled `moments`."""
        layers_KBTD = self.layers(encoder, batch)
        if self.pooling == "none":
            return jnp.moveaxis(layers_KBTD, 0, 2).astype(jnp.float32)
        return moments(layers_KBTD, batch.valid_BT)

    def of_clip(self, values: Any, num_frames: int, clip_id: str) -> np.ndarray:
        """From what `made` has of a clip: [T, K, D], [1, K, D] or [1, K, 2 D], without K where it is one layer.

        Raises ValueError naming the clip and a layer that is NaN or infinite.
        """
        if self.pooling == "none":
            found = values[:num_frames]
        else:
            mean, variance, square = values
            parts = [mean] if self.pooling == "mean" else [mean, deviation(variance, square, mean)]
            found = np.concatenate(parts, axis=-1)[None]
        made = finite(found, range(found.shape[1]) if self.layer == ALL else [self.layer], clip_id)
        return made if self.layer == ALL else made[:, 0]


def extract(run: RunBase, folder: Path, table: ClipTable, wanted: Wanted) -> int:
    """Writes the features of all clips of the table into the run's folder; returns how many were made this time.

    Files that are there from the same command are left as they are. Raises Stopped between two batches.
    """
    encoder = load_encoder(folder)
    values = 1 if wanted.layer != ALL else encoder.config.num_layers + 1
    rows_N = table.lengths.astype(int) if wanted.pooling == "none" else np.full(len(table), 2)
    bytes_N = 4 * values * encoder.config.width * rows_N
    forward, state = forward_of(
        run, encoder.module, wanted.made, everywhere=True, of_clips=wanted.pooling != "none"
    )  # fmt: skip
    blocks = list(enumerate(_blocks(bytes_N)))
    names = {number: f"features-{number:05d}.{wanted.format}" for number, _ in blocks}
    there = on_main(lambda: [(run.workdir / names[number]).exists() for number, _ in blocks])
    done = sum(len(rows) for (_, rows), whole in zip(blocks, there, strict=True) if whole)
    if done:
        log(f"{run.workdir}: features of {done} of {len(table)} clips are there already")
    with Progress("features", len(table), "clip", initial=done) as progress:
        for (number, rows), whole in zip(blocks, there, strict=True):
            if not whole:
                made = _features(forward, state, table.select(rows), wanted, progress.update)
                ids = [table.clip_ids[int(row)] for row in rows]
                on_main(lambda n=number, i=ids, m=made: write_features(run.workdir / names[n], i, m, wanted.format))
    on_main(lambda: write_text(run.workdir / INDEX_FILE, _index(table, blocks, names, wanted)))
    return len(table) - done


def _features(
    forward: Forward, state: Any, table: ClipTable, wanted: Wanted, each: Callable[[], None]
) -> list[np.ndarray]:
    found: list[np.ndarray] = [np.zeros(0)] * len(table)
    for row, num_frames, values in forward(state, table):
        found[row] = wanted.of_clip(values, num_frames, table.clip_ids[row])
        each()
    return found


def _blocks(bytes_N: np.ndarray) -> Iterator[np.ndarray]:
    """Rows in order, each time as many as `FILE_BYTES` hold, at least one."""
    first, size = 0, 0
    for row, more in enumerate(bytes_N.tolist()):
        if row > first and size + more > FILE_BYTES:
            yield np.arange(first, row)
            first, size = row, 0
        size += more
    yield np.arange(first, len(bytes_N))


def _index(table: ClipTable, blocks: list[tuple[int, np.ndarray]], names: dict[int, str], wanted: Wanted) -> str:
    """Where the features of each clip are: in which file, and from which row on how many."""
    labels = sorted(name for name, kind in table.label_kinds.items() if kind == "class")
    columns = {name: table.label(name) for name in labels}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["clip_id", "file", "first_row", "rows", "frames", "split", "speaker", *labels])
    for number, rows in blocks:
        first = 0
        for row in rows.tolist():
            frames = int(table.lengths[row])
            count = frames if wanted.pooling == "none" else 1
            said = [columns[name][row] for name in labels]
            known = (table.index.splits[row], table.speakers[row])
            writer.writerow([table.clip_ids[row], names[number], first, count, frames, *known, *said])
            first += count
    return text.getvalue()


def _recipe(encoder: Path) -> RunConfig:
    """A run of nothing but passes of the encoder; the folder and the clips are put in later."""
    data = DataConfig(batch_frames=BATCH_FRAMES, bucket_frames=(100, 200, 400, 800, 1500))
    return RunConfig(workdir=str(encoder), data=data, model=read_config(encoder)[0])


def _corpus(given: Given, output: Path) -> CorpusConfig:
    """SOURCE if it is a prepared corpus; else one that is prepared of it beside the features."""
    encoder, source = given.paths
    if not source.is_dir():
        raise ValueError(
            f"{source} is no folder; give that of a prepared corpus or of raw clips (of one clip: "
            f"`mmpretrain.load_encoder(DIR).from_file(CLIP)`)"
        )
    if (source / CORPUS_FILE).exists():
        return CorpusConfig(str(source))
    config = read_config(encoder)[0]
    how = ("folder", "--source", str(source), "--validation-share", "0")
    how += (f"--{config.inputs.view}-size", str(read_crop_size(encoder)))
    how += ("--landmarker", given["landmarker"]) if given["landmarker"] else ()
    corpus = CorpusConfig(str(output / PREPARED), prepare=how)
    on_main(lambda: run_preparation(corpus))
    return corpus


def _wanted(given: Given) -> Wanted:
    config, text = read_config(given.paths[0])[0], given["layer"]
    layer = None if text is None else ALL if text == ALL else int(text) if text.isdecimal() else -1
    if layer is not None and layer != ALL and not 0 <= layer <= config.num_layers:
        raise ValueError(f"--layer={text}; this encoder has layers 1 to {config.num_layers}, 0, its input, and {ALL}")
    wanted = Wanted(layer, given["pooling"] or "none", given["format"] or "safetensors")
    check_format(wanted.format)
    return wanted


def _command(given: Given) -> None:
    encoder, output, wanted = given.paths[0], Path(given["output"]), _wanted(given)
    if (output / CORPUS_FILE).exists():
        raise ValueError(f"--output={output} is a prepared corpus; give another folder")
    given.at_end.enter_context(owned(output, field="--output"))
    corpus = _corpus(given, output)
    data = dataclasses.replace(given.config.data, corpora=(corpus,), batch_multiple=jax.device_count())
    run = RunBase(dataclasses.replace(given.config, workdir=str(output), data=data))
    every = open_clips([corpus])
    table = every.require(run.config.model.modalities)
    if len(table) < len(every):
        log(f"{len(every) - len(table)} of {len(every)} clips have nothing that the encoder takes and are left out")
    if why := SourceEncoder(encoder).why_other_scale(table):
        raise ValueError(why)
    # An encoder that was trained anew by the same recipe has the same fingerprint, and other weights.
    weights = sealed(present_folder(encoder)).get(WEIGHTS_FILE)
    request = {"encoder": read_config(encoder)[1]["fingerprint"], "weights": weights, "clips": table.fingerprint}
    request |= dataclasses.asdict(wanted)
    on_main(lambda: _check_request(output, request))
    made = extract(run, encoder, table, wanted)
    what = "frame" if wanted.pooling == "none" else "clip"
    log(
        f"{output}: features of {len(table)} clips, {made} of them made now, a row for each {what}; {INDEX_FILE} says "
        "where those of a clip are"
    )


def _check_request(output: Path, request: dict[str, Any]) -> None:
    before = read_json(output / REQUEST_FILE, if_missing=None, remedy="give another --output")
    if before is None:
        write_json(output / REQUEST_FILE, request)
    elif changed := [name for name in request if before.get(name) != request[name]]:
        told = "; ".join(f"{name} was {before.get(name)}, now {request[name]}" for name in changed)
        raise ValueError(f"--output={output} holds features of another command ({told}); give another folder")


COMMAND = Command(
    "extract",
    "features of a corpus or of a folder of raw clips",
    _command,
    takes=Argument("ENCODER SOURCE", "the folder of an encoder, then a prepared corpus or a folder of videos", count=2),
    recipe_at=_recipe,
    options=(
        Option("output", str, "the folder to write", "DIR", required=True),
        Option("layer", str, f"after which layer: 0 (its input) to the last, or {ALL}; default: the output", "K"),
        Option("pooling", POOLINGS, "a row for each frame (none, the default), or for each clip"),
        Option("format", FORMATS, "of the files; default: safetensors, an array by each clip's id"),
        Option("landmarker", str, "MediaPipe's face_landmarker.task, for raw clips", "PATH"),
    ),
    examples=(
        "mmpretrain extract runs/demo/export/encoder prepared/ravdess --output=features  # [T, D] of each clip",
        "mmpretrain extract encoders/base_vox my_videos --output=features --layer=9 --pooling=mean --format=npy",
    ),
    details=(
        "Raw clips are prepared first, into the folder `prepared` of the output, as `python -m data_prep folder` does; "
        "`prepared/report.csv` says what became of each file.",
        "A frame is 40 ms. --pooling=mean gives the mean over a clip, statistics its mean and standard deviation. In "
        "npy and hdf5 the rows of the clips follow each other. A command that was stopped goes on where it was; all "
        "devices are used, and with --coordinator those of several machines.",
    ),
)
