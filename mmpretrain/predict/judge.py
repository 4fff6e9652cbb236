"""What the head of an encoder says of stretches of clips, many at once.

B stretches, T frames, C values: chances of classes, or a number.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx

from mmpretrain import compiler
from mmpretrain.data.batch import empty_batch, put_clip
from mmpretrain.encoders.card import STAYED
from mmpretrain.encoders.encoder import Encoder
from mmpretrain.models.task_heads import HEADS, ask_heads
from mmpretrain.predict.reading import Reading
from mmpretrain.records import Batch, Clip

AT_ONCE = 16


class Judge:
    """An encoder with the head of one task. task: its name; "": the first that says what can be read.

    Raises ValueError if there is none.
    """

    def __init__(self, encoder: Encoder, task: str = ""):
        if not encoder.tasks:
            stayed = encoder.lineage.get(STAYED)
            why = f" ({STAYED}: {stayed})" if stayed else ""
            raise ValueError(
                f"the encoder has no head{why}, hence nothing to predict; give one that was fine-tuned, e.g. "
                "runs/NAME/finetune/pretrained/fold1/encoder (`mmpretrain finetune` makes it)"
            )
        found = [known for known in encoder.tasks if task in ("", known.name)]
        if not found:
            known = ", ".join(each.name for each in encoder.tasks)
            raise ValueError(f"--task={task}: the encoder has no head of that name, but of {known}")
        self.encoder = encoder
        self.task = next((known for known in found if known.kind != "embedding"), found[0])
        self.reading = Reading.of(self.task)
        self.modalities = encoder.config.modalities

    @property
    def view(self) -> str:
        """Which crops it sees, "mouth" or "face"."""
        return self.encoder.config.inputs.view

    @property
    def of_frames(self) -> bool:
        """Whether it speaks of every frame."""
        return HEADS[self.task.kind].of_frames

    def says(self, clips: Sequence[Clip], num_frames: int, without: Sequence[str] = ()) -> np.ndarray:
        """float32 [B, C], or of every frame [B, T, C], of clips of at most `num_frames` frames each, which is T.

        NaN of one that has nothing that is used. without: modalities that are left out although a clip has them.
        """
        made = [self._batch(clips[i : i + AT_ONCE], num_frames, without) for i in range(0, len(clips), AT_ONCE)]
        nothing = (0, num_frames, len(self.reading.names)) if self.of_frames else (0, len(self.reading.names))
        return np.concatenate(made) if made else np.zeros(nothing, np.float32)

    def _batch(self, clips: Sequence[Clip], num_frames: int, without: Sequence[str]) -> np.ndarray:
        batch = empty_batch(AT_ONCE, num_frames, self.encoder.config)  # always as many: one program for all
        for b, clip in enumerate(clips):
            has = {"audio": len(clip.audio) > 0, "video": len(clip.mouth) > 0}
            present = [name for name in self.modalities if has.get(name) and name not in without]
            put_clip(batch, b, clip, range(clip.num_frames), present, self.encoder.config)
        said = np.asarray(self._compiled(self._split[1], batch))[: len(clips)]
        some = np.any([batch.present[name][: len(clips)] for name in self.modalities], axis=0)
        return np.where(some.reshape(-1, *[1] * (said.ndim - 1)), said, np.nan)

    @functools.cached_property
    def _split(self) -> tuple[nnx.GraphDef, nnx.State]:
        head = nnx.Dict({self.task.name: self.encoder.heads[self.task.name]})
        return nnx.split(nnx.Dict({"encoder": self.encoder.module, "heads": head}))

    @functools.cached_property
    def _compiled(self):
        (graphdef, _), task, says = self._split, self.task, HEADS[self.task.kind].says

        def run(state: nnx.State, batch: Batch) -> jax.Array:
            network, valid_BT, present = nnx.merge(graphdef, state, copy=True), batch.valid_BT, batch.present
            encoder = network["encoder"]
            prepared = encoder.prepare(batch.inputs, valid_BT)
            layers_LBTD = encoder.all_layers(encoder.embed(prepared, valid_BT, present)[0], valid_BT)
            said = ask_heads(encoder, network["heads"], self.encoder.form, layers_LBTD, prepared, valid_BT, present)
            return says(said[task.name], task)

        return jax.jit(run, compiler_options=compiler.for_forward(jax.default_backend()))
