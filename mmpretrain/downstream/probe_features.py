"""What an encoder, ours or one of another project, says of the clips of a fine-tuning, for probes to read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmpretrain.config import TextConfig
from mmpretrain.data.unreadable import UnreadableClipError
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.downstream.frozen import Frozen
from mmpretrain.downstream.texts import encoded, text_recipe, turns_of_clips
from mmpretrain.encoders.finite import finite
from mmpretrain.encoders.foreign import ForeignEncoder, what_it_reads
from mmpretrain.evaluation.probes import Features
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.observe.progress import track
from mmpretrain.records import Batch
from mmpretrain.run.forward import encode
from mmpretrain.run.layout import PRETRAINED, SCRATCH
from mmpretrain.text.transcripts import TextEncoder

OURS = {"pretrained": PRETRAINED, "untrained": SCRATCH}
MODEL = "--model"  # that names a folder
REMEDY = "take one of an earlier step, or a protocol that reads means of layers, such as probe-superb"


def reads_text(name: str) -> bool:
    """Whether the model of that name, ours or a folder, takes texts. Raises what `ForeignEncoder` does."""
    return name not in OURS and what_it_reads(Path(name)) == "text"


def all_probed(finetuning: Finetuning, names: Sequence[str]) -> list[Probed]:
    """Each once, in order. Raises ValueError where two are called alike, and what `Probed` raises."""
    made: dict[str, Probed] = {}
    for name in dict.fromkeys(names):
        probed = Probed(finetuning, name)
        if other := made.get(probed.title):
            raise ValueError(
                f"--model={other.name} and --model={name} are both called {probed.title!r}, and results are kept by "
                "that; rename one of the two folders"
            )
        made[probed.title] = probed
    return list(made.values())


class Probed:
    """An encoder by the name that it is given: `pretrained`, `untrained`, or the folder of one of another project.

    One of texts reads them as the recipe's `finetune.text` says, where it has one: with how many turns before, and how
    many tokens.
    """

    def __init__(self, finetuning: Finetuning, name: str):
        if name == "pretrained" and finetuning.config.encoder == "none":
            raise ValueError("model `pretrained`: finetune.encoder='none'; name an encoder, or probe others")
        self.finetuning, self.name = finetuning, name
        self._text = self._foreign = None
        self._made: tuple[tuple[bytes, bool], Features] | None = None  # of which rows, and whether with frames
        if reads_text(name):
            asked = finetuning.config.text or TextConfig()
            self._text = dataclasses.replace(asked, encoder=name)
        elif name not in OURS:
            self._foreign = ForeignEncoder(Path(name))

    @property
    def title(self) -> str:
        """A plain word, for folders and tables."""
        return self.name if self.name in OURS else Path(self.name).resolve().name

    @property
    def modality(self) -> str:
        """What of a clip it cannot do without; "" for ours."""
        if self._text is not None:
            return "text"
        return self._foreign.modality if self._foreign else ""

    @property
    def recipe(self) -> dict[str, Any]:
        """All that decides what it says."""
        if self._text is not None:
            return text_recipe(self._text, self.finetuning.table, MODEL)
        if self._foreign is not None:
            return {"files": self._foreign.fingerprint}
        if self.name == "pretrained":
            return {"encoder": self.finetuning.encoder.fingerprint}
        return self.finetuning.run.fields("seed", "model")

    def features(self, rows: np.ndarray, *, frames: bool) -> Features:
        """Of these rows of the table, in their order. frames: those of the last layer too, else there is none.

        All processes ask together. A clip without what it takes, or one that cannot be read, has zeros. Asked again for
        the same rows, it says what it said.
        """
        asked = (rows.tobytes(), frames)
        if self._made is None or self._made[0] != asked:
            read = self._read if self._text is not None else self._others if self._foreign else self._ours
            self._made = asked, read(rows, frames)
        return self._made[1]

    def every_layer(self, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """(place among these rows, float32 [L + 1, T, D] at 25 Hz) of each clip that it takes and that can be read.

        All processes ask together, and each gets all clips. Raises ValueError where there is none.
        """
        if self._text is not None:
            raise ValueError(f"{self.name}: a model of text says nothing of single frames; `probe` takes it")
        table, given = self.finetuning.table.select(rows), False
        if self._foreign is None:
            encoder = Frozen(self.finetuning).encoder(OURS[self.name])
            for place, num_frames, made_TLD in encode(
                self.finetuning.run, encoder, table, _layers, everywhere=True, title=f"{self.title}: layers"
            ):
                if num_frames:
                    given = True
                    layers = range(made_TLD.shape[1])
                    yield place, np.moveaxis(finite(made_TLD[:num_frames], layers, table.clip_ids[place]), 1, 0)
        else:
            there = np.flatnonzero(table.has(self._foreign.modality))
            for place in track(there.tolist(), f"{self.title}: layers", unit="clip"):
                try:
                    yield place, self._foreign.frames(table.load(place))
                    given = True
                except UnreadableClipError as error:
                    table.unreadable.add(error)
        if not given:
            raise ValueError(f"{self.name}: none of the clips has what it takes")

    def attention(self, row: int) -> np.ndarray | None:
        """float32 [T, T]: of a clip of the table, how much of each frame goes into each (`Transformer.rollout`).

        All processes ask together. None of a model of another project, and of a clip that cannot be read.
        """
        if self.name not in OURS:
            return None
        encoder, table = Frozen(self.finetuning).encoder(OURS[self.name]), self.finetuning.table.select(np.array([row]))
        ((_, num_frames, made_TS),) = encode(self.finetuning.run, encoder, table, _rollout, everywhere=True)
        return np.asarray(made_TS[:num_frames, :num_frames]) if num_frames else None

    def _ours(self, rows: np.ndarray, frames: bool) -> Features:
        finetuning, variant = self.finetuning, OURS[self.name]
        frozen, width = Frozen(finetuning), finetuning.model(variant).width
        means_NLD = frozen.features(variant, rows).reshape(len(rows), -1, 2 * width)[..., :width]
        said: list[np.ndarray] = [np.zeros((1, width), np.float16)] * len(rows)
        if frames:
            title = f"{self.title}: frames of the last layer"
            for row, num_frames, made_TD in encode(
                finetuning.run, frozen.encoder(variant), finetuning.table.select(rows), _last, everywhere=True,
                title=title,
            ):  # fmt: skip
                said[row] = self._kept(made_TD[: max(1, num_frames)], means_NLD.shape[1] - 1, rows[row])
        return _together(means_NLD, said)

    def _read(self, rows: np.ndarray, frames: bool) -> Features:
        """Of texts; what stands for frames are their tokens."""
        spoken = turns_of_clips(self.finetuning.table, self._text.context, f"{MODEL}={self.name}")
        encoder = TextEncoder(self.name, self._text.max_tokens, MODEL)
        means, said = {}, {}
        for i, layers_SLD in encoded(encoder, [spoken[row] for row in rows.tolist()], layers=True):
            if layers_SLD.shape[1]:
                means[i] = layers_SLD.mean(1)
                said[i] = self._kept(layers_SLD[-1], len(layers_SLD) - 1, rows[i]) if frames else None
        return self._filled(len(rows), means, said, frames)

    def _others(self, rows: np.ndarray, frames: bool) -> Features:
        table, means, said = self.finetuning.table, {}, {}
        there = table.has(self._foreign.modality)
        for i, row in enumerate(track(rows, f"{self.title}: layers", unit="clip")):
            if there[row]:
                try:
                    layers_LTD = self._foreign.layers(table.load(row))
                except UnreadableClipError as error:
                    table.unreadable.add(error)
                    continue
                means[i] = layers_LTD.mean(1)
                said[i] = self._kept(layers_LTD[-1], len(layers_LTD) - 1, row) if frames else None
        return self._filled(len(rows), means, said, frames)

    def _kept(self, states_TD: np.ndarray, layer: int, row: int) -> np.ndarray:
        """The frames of a clip as float16. Raises ValueError where they are not finite as such."""
        clip_id = self.finetuning.table.clip_ids[int(row)]
        return finite(states_TD[:, None], [layer], clip_id, np.float16, f"{MODEL}={self.name}: {REMEDY}")[:, 0]

    def _filled(
        self, count: int, means: dict[int, np.ndarray], said: dict[int, np.ndarray | None], frames: bool
    ) -> Features:
        """Zeros for what is not among the means, [L, D] by place, and the frames, [T, D]."""
        if not means:
            raise ValueError(f"{self.name}: none of the clips has {self.modality}, which it takes")
        blank = np.zeros_like(next(iter(means.values())))
        of_frames = [said[i] if frames and i in said else np.zeros((1, blank.shape[1]), np.float16)
                     for i in range(count)]  # fmt: skip
        return _together(np.stack([means.get(i, blank) for i in range(count)]), of_frames)


def _layers(encoder: AVEncoder, batch: Batch) -> jax.Array:
    made = encoder.all_layers(encoder.embed_batch(batch), batch.valid_BT)
    return jnp.moveaxis(made.astype(jnp.float32), 0, 2)  # [B, T, L + 1, D]


def _rollout(encoder: AVEncoder, batch: Batch) -> jax.Array:
    return encoder.transformer.rollout(encoder.embed_batch(batch), batch.valid_BT)


def _last(encoder: AVEncoder, batch: Batch) -> jax.Array:
    return encoder.all_layers(encoder.embed_batch(batch), batch.valid_BT)[-1].astype(jnp.float32)


def _together(means_NLD: np.ndarray, said: list[np.ndarray]) -> Features:
    longest = max(map(len, said))
    frames_NTD = np.zeros((len(said), longest, means_NLD.shape[-1]), np.float16)
    valid_NT = np.zeros((len(said), longest), bool)
    for i, own in enumerate(said):
        frames_NTD[i, : len(own)], valid_NT[i, : len(own)] = own, True
    return Features(means_NLD, frames_NTD, valid_NT)
