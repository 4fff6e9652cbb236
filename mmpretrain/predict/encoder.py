"""`mmpretrain.load_encoder`: an exported encoder that also takes media files, prepared as its training clips were."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmpretrain.encoders import encoder as arrays
from mmpretrain.records import Clip

if TYPE_CHECKING:
    from data_prep.options import Options


class Encoder(arrays.Encoder):
    """A pretrained encoder, for arrays (`features`, `outputs`) and for files (`from_file`, `clips_of`)."""

    def from_file(self, path: str | Path, *, layer: int | None = None, landmarker: str | None = None) -> np.ndarray:
        """The features of a video or sound file, float32 [T, D], 25 rows a second: those of the prepared clip.

        Decodes, finds the face that speaks (or else is large for long), crops it and goes through the encoder, by the
        same code as a prepared corpus. A file of more than a minute is cut at pauses into clips, whose features follow
        each other.
        layer: as in `features`. landmarker: MediaPipe's face_landmarker.task; None: $MMPRETRAIN_LANDMARKER, else the
        user's cache, fetched there once. Raises ValueError or FileNotFoundError where there is no file, or nothing in
        it that the encoder takes.
        """
        return np.concatenate([self.features_of(clip, layer=layer) for clip in self.clips_of(path, landmarker)])

    def clips_of(self, path: str | Path, landmarker: str | None = None) -> Iterator[Clip]:
        """What `from_file` looks at: the clips of a file, one after the other, as a prepared corpus would have them."""
        from data_prep.landmarker import landmarker_model
        from data_prep.single import clips_of_file
        from data_prep.sources import may_have_picture

        path = Path(path)
        model = landmarker_model(landmarker) if may_have_picture(path) else None
        for single in clips_of_file(path, self.preparation, model):
            if single.clip is None:
                raise ValueError(f"{path}: {single.row.reason}")
            if not self.takes(single.clip):
                has = " and ".join(["sound"] * bool(len(single.clip.audio)) + ["picture"] * bool(len(single.clip.face)))
                notes = f" ({single.row.notes})" if single.row.notes else ""
                raise ValueError(f"{path}: only {has} can be used{notes}; {self.wants}")
            yield single.clip

    @property
    def preparation(self) -> Options:
        """How its clips are prepared."""
        from data_prep.options import Options

        return Options(**{f"{self.config.inputs.view}_size": self.crop_size})

    def takes(self, clip: Clip) -> bool:
        """Whether the clip has a modality of the encoder."""
        return bool(self.arrays_of(clip))

    @property
    def wants(self) -> str:
        """What it takes, for messages."""
        return f"this encoder is of {' and '.join(self.config.modalities)}"


def load_encoder(path: str | Path, *, dtype: str | None = None) -> Encoder:
    """Loads an exported encoder; see `mmpretrain.encoders.encoder.load_encoder`."""
    return arrays.load_encoder(path, dtype=dtype, kind=Encoder)
