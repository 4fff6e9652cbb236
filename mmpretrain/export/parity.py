"""Whether an encoder in another format says what ours says: every layer, of clips with and without each modality.

Dims: B clips, T frames, D width, C classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mmpretrain.config import ModelConfig
from mmpretrain.encoders.encoder import Encoder
from mmpretrain.randomness import generator
from mmpretrain.records import SAMPLES_PER_FRAME, Clip

TOLERANCE = 1e-4  # absolute, in float32
MAX_FRAMES = 500  # of a clip that is compared; longer ones are cut


class Case(NamedTuple):
    """What an encoder is given of one clip: int16 [N] and uint8 [T, S, S], either None."""

    name: str
    audio: np.ndarray | None
    video: np.ndarray | None


def cases_of(clips: Iterable[Clip], config: ModelConfig) -> list[Case]:
    """Each clip with all that it has of the encoder's modalities, and, where that is two, with each alone.

    Raises ValueError if no clip has any, or the encoder is of others than sound and picture.
    """
    if unknown := set(config.modalities) - {"audio", "video"}:
        raise ValueError(f"model.modalities={config.modalities}: this format is of audio and video, not {min(unknown)}")
    found = []
    for clip in clips:
        view = {"mouth": clip.mouth, "face": clip.face}[config.inputs.view][:MAX_FRAMES]
        sound = clip.audio[: MAX_FRAMES * SAMPLES_PER_FRAME]
        audio, video = (x if len(x) and name in config.modalities else None
                        for name, x in (("audio", sound), ("video", view)))  # fmt: skip
        if audio is not None and video is not None:
            found += [Case(f"{clip.clip_id} without {name}", *kept)
                      for name, kept in (("video", (audio, None)), ("audio", (None, video)))]  # fmt: skip
        if audio is not None or video is not None:
            found.append(Case(clip.clip_id, audio, video))
    if not found:
        raise ValueError(f"none of the clips to compare on has {' or '.join(config.modalities)}")
    return found


def made_up_clips(config: ModelConfig, num_clips: int = 3) -> list[Clip]:
    """Where there are no real ones: noise that swells, and squares that drift over noise, of several lengths."""
    random, clips, side = generator(0, "made-up clips"), [], config.inputs.image_size + 4
    for number in range(num_clips):
        T = 31 + 17 * number
        swell = np.abs(np.sin(np.arange(T * SAMPLES_PER_FRAME) / (4000 + 900 * number)))
        audio = (random.normal(size=len(swell)) * swell * 3000).astype(np.int16)
        crops = random.integers(90, 120, (T, side, side)).astype(np.uint8)
        for t in range(T):
            crops[t, side // 3 : side // 2, (t + number) % side :][..., : side // 3] = 220
        clips.append(Clip(clip_id=f"made-up/{number}", audio=audio, mouth=crops, face=crops, tracks={}))
    return clips


def expected(encoder: Encoder, case: Case) -> dict[str, np.ndarray]:
    """What ours says, by name: [T, D] of the fused modalities, of every layer, and of the output; [C] of each head."""
    given = {name: x for name, x in (("audio", case.audio), ("video", case.video)) if x is not None}
    made = encoder.outputs(**given)
    values = {"fused": made.fused, "output": made.output}
    values |= {f"layer {k}": x_TD for k, x_TD in enumerate(made.layers)}
    return values | {f"head {task}": logits for task, logits in made.logits.items()}


@dataclasses.dataclass
class Differences:
    """The largest absolute difference of each output, over all that was compared, and of what it was."""

    worst: dict[str, float] = dataclasses.field(default_factory=dict)
    where: dict[str, str] = dataclasses.field(default_factory=dict)
    compared: int = 0

    def add(self, name: str, ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]) -> None:
        """name: of the clip, and how it was put in. theirs: of the same names; frames beyond ours are padding."""
        self.compared += 1
        for output, wanted in ours.items():
            found = np.asarray(theirs[output], np.float32)
            found = found[: len(wanted)] if wanted.ndim > 1 else found
            error = float(np.abs(found - wanted).max()) if found.shape == wanted.shape else np.inf
            error = error if np.isfinite(error) else np.inf  # NaN is no agreement
            if error >= self.worst.get(output, 0.0):
                self.worst[output], self.where[output] = error, name

    @property
    def largest(self) -> float:
        return max(self.worst.values())

    def lines(self, tolerance: float = TOLERANCE) -> list[str]:
        """What was found, for people. Raises ValueError if it is more than the tolerance."""
        output = max(self.worst, key=lambda name: self.worst[name])
        says = f"largest difference {self.largest:.2g} ({output}, {self.where[output]})"
        if not self.largest <= tolerance:
            raise ValueError(
                f"what was written says something else than the encoder: {says}, more than {tolerance:g}; nothing was "
                "kept of it"
            )
        return [f"loaded back and compared on {self.compared} inputs, {len(self.worst)} outputs of each: {says}"]


def in_batches(cases: Sequence[Case], size: int) -> Iterable[tuple[str, Sequence[Case]]]:
    """Each case by itself, then all of them padded in batches of `size`, with how they were put in."""
    yield from (("alone", [case]) for case in cases)
    yield from (("padded in a batch", cases[i : i + size]) for i in range(0, len(cases), size))
