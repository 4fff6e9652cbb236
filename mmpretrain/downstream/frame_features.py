"""What is known of every frame of clips, to be read by a linear probe: an encoder's layers, and plain features."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mmpretrain.config import ModelConfig
from mmpretrain.data.clips import ClipTable
from mmpretrain.data.inputs import INPUTS
from mmpretrain.data.unreadable import UnreadableClipError
from mmpretrain.encoders.finite import finite
from mmpretrain.evaluation.baselines import picture_cells
from mmpretrain.evaluation.frame_probe import with_context
from mmpretrain.features.mfcc import MFCC_DIM, mfcc39_of_frames
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.records import Batch
from mmpretrain.run.base import RunBase
from mmpretrain.run.forward import encode

PER_FRAME = 4  # rows of MFCC in one frame of 40 ms
CONTEXTS = (0, 2)  # frames to each side that a feature may have beside it, be it plain or an encoder's


class FrameFeatures:
    """Several kinds of features of the frames of N clips, of which a probe takes one.

    arrays: by name, of each clip [T, F]. contexts: for each of them the numbers of frames to each side that a kind has
    beside a frame.
    """

    def __init__(self, arrays: dict[str, list[np.ndarray]], contexts: Sequence[int] = (0,)):
        self._kinds = [(of_clips, context) for of_clips in arrays.values() for context in contexts]
        self.names = [f"{name}, context {c}" if c else name for name in arrays for c in contexts]

    def of(self, kind: int, clip: int) -> np.ndarray:
        """float32 [T, F]."""
        of_clips, context = self._kinds[kind]
        return with_context(of_clips[clip].astype(np.float32), context)


def shown(batch: Batch, inputs: Sequence[str]) -> Batch:
    """The batch as if no clip had any modality but these."""
    present = {name: has & (name in inputs) for name, has in batch.present.items()}
    return batch._replace(present=present)


def layers_of_frames(
    run: RunBase, encoder: AVEncoder, table: ClipTable, inputs: Sequence[str], title: str = ""
) -> FrameFeatures:
    """Every layer of an encoder that is shown these modalities alone, 0 being what the first layer takes, and all.

    Kept as float16. Raises ValueError naming the clip and the layer that cannot be.
    """

    def layers(encoder: AVEncoder, batch: Batch) -> jax.Array:
        made = encoder.all_layers(encoder.embed_batch(shown(batch, inputs)), batch.valid_BT)
        return jnp.moveaxis(made.astype(jnp.float32), 0, 2)  # [B, T, L, D]

    of_clips: list[np.ndarray] = [np.zeros(0)] * len(table)
    names = range(encoder.config.num_layers + 1)
    for row, num_frames, made_TLD in encode(run, encoder, table, layers, everywhere=True, title=title):
        of_clips[row] = finite(made_TLD[:num_frames], names, table.clip_ids[row], np.float16)
    arrays = {f"layer {layer}": [x[:, layer] for x in of_clips] for layer in names}
    return FrameFeatures(arrays | {"all layers": [x.reshape(len(x), -1) for x in of_clips]}, CONTEXTS)


def plain_features(model: ModelConfig, table: ClipTable, inputs: Sequence[str]) -> FrameFeatures:
    """All 39 MFCC of the four rows of a frame, or where no sound is shown the picture, as the model has it, in 16 x 16
    cells.

    As they are, and less the mean of the clip over its deviation; each with and without context. A clip that has
    neither sound nor picture, or cannot be read, has zeros.
    """
    make, name = (_sound, "MFCC") if "audio" in inputs else (_picture, "picture")
    plain = [_read_or_zeros(make, model, table, row) for row in range(len(table))]
    relative = [(x - x.mean(0)) / (x.std(0) + 1e-3) for x in plain]
    return FrameFeatures({f"{name} of each clip's scale": relative, name: plain}, CONTEXTS)


def _read_or_zeros(
    make: Callable[[ModelConfig, ClipTable, int, bool], np.ndarray], model: ModelConfig, table: ClipTable, row: int
) -> np.ndarray:
    try:
        return make(model, table, row, True)
    except UnreadableClipError as error:
        table.unreadable.add(error)
        return make(model, table, row, False)


def _sound(model: ModelConfig, table: ClipTable, row: int, read: bool) -> np.ndarray:
    num_frames = int(table.lengths[row])
    if not read or not table.has("audio")[row]:
        return np.zeros((num_frames, PER_FRAME * MFCC_DIM), np.float32)
    return mfcc39_of_frames(table.open(row).audio, num_frames, PER_FRAME).reshape(num_frames, -1)


def _picture(model: ModelConfig, table: ClipTable, row: int, read: bool) -> np.ndarray:
    num_frames, config = int(table.lengths[row]), model.inputs
    if not read or not table.has("video")[row]:
        return picture_cells(np.zeros((num_frames, config.image_size, config.image_size), np.uint8))
    return picture_cells(INPUTS["video"].make(table.open(row), range(num_frames), config, None))
