"""Audio-visual encoders of talking faces by masked multimodal cluster prediction, in JAX."""

from __future__ import annotations

TYPE_CHECKING = False  # to type checkers it is True; nothing is imported before __main__ has looked at the path
if TYPE_CHECKING:
    from pathlib import Path

    from mmpretrain.predict.encoder import Encoder


def load_encoder(path: str | Path, *, dtype: str | None = None) -> Encoder:
    """The encoder of an exported folder, for arrays and for media files; see `mmpretrain.predict.encoder.Encoder`.

    dtype: of its activations, "float32" or "bfloat16"; None: the one that it was trained with.
    """
    from mmpretrain.predict.encoder import load_encoder

    return load_encoder(path, dtype=dtype)
