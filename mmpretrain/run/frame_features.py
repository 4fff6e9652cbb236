"""What is known of every frame of clips, to be read by a linear probe: an encoder's layers, and plain features."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mmpretrain.data.clips import ClipTable
from mmpretrain.data.inputs import INPUTS
from mmpretrain.evaluation.baselines import picture_cells
from mmpretrain.evaluation.frame_probe import with_context
from mmpretrain.features.mfcc import MFCC_DIM, mfcc39_of_frames
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.records import Batch
from mmpretrain.run.base import RunBase
from mmpretrain.run.forward import encode

PER_FRAME = 4  # rows of MFCC in one frame of 40 ms
CONTEXTS = (0, 1, 2, 4)  # frames to each side that a plain feature may have beside it


@dataclasses.dataclass(frozen=True)
class FrameFeatures:
    """Kinds of features of the frames of N clips: of each clip and kind an array [T, F].

    names: of the kinds, of which a probe takes one.
    """

    names: tuple[str, ...]
    of_clips: list[list[np.ndarray]]

    def frames(self, kind: int, clips: Sequence[int]) -> np.ndarray:
        """Those of these clips one after the other, float32 [K, F]."""
        return np.concatenate([self.of_clips[clip][kind] for clip in clips]).astype(np.float32)


def shown(batch: Batch, inputs: Sequence[str]) -> Batch:
    """The batch as if no clip had any modality but these."""
    present = {name: has if name in inputs else jnp.zeros_like(has) for name, has in batch.present.items()}
    return batch._replace(present=present)


def layers_of_frames(
    run: RunBase, encoder: AVEncoder, table: ClipTable, inputs: Sequence[str], title: str = ""
) -> FrameFeatures:
    """Every layer of an encoder that is shown these modalities alone, 0 being what the first layer takes, and all."""

    def layers(encoder: AVEncoder, batch: Batch) -> jax.Array:
        made = encoder.all_layers(encoder.embed_batch(shown(batch, inputs)), batch.valid_BT)
        return jnp.moveaxis(made.astype(jnp.float32), 0, 2)  # [B, T, L, D]

    of_clips: list[list[np.ndarray]] = [[]] * len(table)
    for row, num_frames, made_TLD in encode(run, encoder, table, layers, everywhere=True, title=title):
        made_TLD = np.asarray(made_TLD[:num_frames], np.float16)
        of_clips[row] = [*np.moveaxis(made_TLD, 1, 0), made_TLD.reshape(num_frames, -1)]
    names = [f"layer {layer}" for layer in range(encoder.config.num_layers + 1)]
    return FrameFeatures((*names, "all layers"), of_clips)


def plain_features(run: RunBase, table: ClipTable, inputs: Sequence[str]) -> FrameFeatures:
    """39 MFCC of the sound, or where sound is not shown the picture in 16 x 16 cells, as they are and less the mean of
    the clip over its deviation; each with several frames of context. Zeros where a clip has neither."""
    names, of_clips = [], []
    for row in range(len(table)):
        kinds = _sound(run, table, row) if "audio" in inputs else _picture(run, table, row)
        names = [f"{name}, {context} frames of context" for name in kinds for context in CONTEXTS]
        of_clips.append([with_context(x_TF, context) for x_TF in kinds.values() for context in CONTEXTS])
    return FrameFeatures(tuple(names), of_clips)


def _sound(run: RunBase, table: ClipTable, row: int) -> dict[str, np.ndarray]:
    num_frames = int(table.lengths[row])
    made = np.zeros((PER_FRAME * num_frames, MFCC_DIM), np.float32)
    if table.has("audio")[row]:
        made = mfcc39_of_frames(table.load(row).audio, num_frames, PER_FRAME)
    made = made.reshape(num_frames, -1)
    return {"MFCC": made, "MFCC of the clip's mean and deviation": _relative(made)}


def _picture(run: RunBase, table: ClipTable, row: int) -> dict[str, np.ndarray]:
    num_frames = int(table.lengths[row])
    if not table.has("video")[row]:
        made = picture_cells(np.zeros((num_frames, 16, 16), np.uint8))
    else:
        made = picture_cells(INPUTS["video"].make(table.load(row), range(num_frames), run.config.model.inputs, None))
    return {"picture": made, "picture of the clip's mean and deviation": _relative(made)}


def _relative(x_TF: np.ndarray) -> np.ndarray:
    return (x_TF - x_TF.mean(0)) / (x_TF.std(0) + 1e-3)
