"""Audio-visual encoders of talking faces by masked multimodal cluster prediction, in JAX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmpretrain.encoders.folder import Encoder


def load_encoder(path: str | Path) -> Encoder:
    """The encoder of an exported folder, ready to compute features; see `mmpretrain.encoders.folder.Encoder`."""
    from mmpretrain.encoders.folder import load_encoder

    return load_encoder(path)
