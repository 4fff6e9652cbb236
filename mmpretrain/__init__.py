"""Audio-visual encoders of talking faces by masked multimodal cluster prediction, in JAX."""

from __future__ import annotations

TYPE_CHECKING = False  # to type checkers it is True; nothing is imported before __main__ has looked at the path
if TYPE_CHECKING:
    from pathlib import Path

    from mmpretrain.encoders.folder import Encoder


def load_encoder(path: str | Path) -> Encoder:
    """The encoder of an exported folder, ready to compute features; see `mmpretrain.encoders.folder.Encoder`."""
    from mmpretrain.encoders.folder import load_encoder

    return load_encoder(path)
