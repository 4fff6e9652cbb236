"""What a user can set of how clips come out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mmpretrain import records
from mmpretrain.features.mean_face import CROP_SIZES
from mmpretrain.storage import COMPRESSIONS

MAX_RECORD_BYTES = 2e9  # a record is one message of at most 2 GiB


@dataclasses.dataclass(frozen=True)
class Options:
    """What decides how clips come out. Raises ValueError.

    mouth_size, face_size: sides of the crops in pixels. min_face_rate: the share of the frames in which the face must
    be found. max_clip_sec: longer files are cut at pauses. max_gap_sec: for longer without the face its place is not
    guessed, and the clip is cut there. compression: how sound and pictures are stored, one of `COMPRESSIONS`.
    hand_landmarker: MediaPipe's model, where hands are to be looked for.
    detect_every: of so many pictures one is looked at for faces. colour: the crops are kept in
    colour too. decode_once: crops are made when faces are looked for, and wait on the disk.
    """

    mouth_size: int = CROP_SIZES["mouth"]
    face_size: int = CROP_SIZES["face"]
    min_face_rate: float = 0.5
    max_clip_sec: float = 60.0
    max_gap_sec: float = 1.0
    compression: str = "none"
    hand_landmarker: Path | None = None
    detect_every: int = 1
    colour: bool = False
    decode_once: bool = False

    @property
    def sizes(self) -> dict[str, int]:
        return {"mouth_size": self.mouth_size, "face_size": self.face_size}

    @property
    def made_at_once(self) -> bool:
        """Whether crops are made when a clip is looked at: not where pictures are needed for more."""
        return self.decode_once and not self.colour and not self.hand_landmarker

    @property
    def tracks(self) -> dict[str, records.TrackSpec]:
        """What clips have by these options."""
        sizes = {"mouth": self.mouth_size, "face": self.face_size} if self.colour else {}
        colours = {f"{view}_colour": records.TrackSpec((size, size, 3), "uint8") for view, size in sizes.items()}
        return {**colours, **(records.HAND_TRACKS if self.hand_landmarker else {})}

    def __post_init__(self) -> None:
        for name in ("mouth_size", "face_size"):
            if not 16 <= getattr(self, name) <= 512:
                flag = "--" + name.replace("_", "-")
                raise ValueError(f"{flag} {getattr(self, name)} is out of range; use 16 to 512 pixels")
        if not 0 <= self.min_face_rate <= 1:
            raise ValueError(f"--min-face-rate {self.min_face_rate} is not a share; use a number from 0 to 1")
        if self.compression not in COMPRESSIONS:
            raise ValueError(f"--compression {self.compression} is not known; use {' or '.join(COMPRESSIONS)}")
        if not 1 <= self.detect_every <= 5:
            raise ValueError(f"--detect-every {self.detect_every} is out of range; use 1 to 5 pictures")
        if not 0 <= self.max_gap_sec <= 60:
            raise ValueError(f"--max-gap-sec {self.max_gap_sec:g} is out of range; use 0 to 60 s")
        pixel_bytes = 4 if self.colour else 1
        frame_bytes = pixel_bytes * (self.mouth_size**2 + self.face_size**2)
        most_sec = MAX_RECORD_BYTES / 2 / (records.FRAME_RATE_HZ * frame_bytes)
        if not 5 <= self.max_clip_sec <= most_sec:
            raise ValueError(
                f"--max-clip-sec {self.max_clip_sec:g} is out of range; use 5 to {most_sec:.0f} s, the longest whose "
                f"crops of {self.mouth_size} and {self.face_size} pixels fit into one record"
            )
