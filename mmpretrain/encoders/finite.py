"""What an encoder says of a clip is numbers, also in the precision in which they are kept; or the clip is named."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

REMEDY = "take the encoder of an earlier step, or leave the clip out"


def finite(
    layers: np.ndarray, numbers: Sequence[int | None], clip_id: str = "", dtype: type = np.float32, remedy: str = REMEDY
) -> np.ndarray:
    """The layers [..., L, D] of a clip as `dtype`, such as float16, of which the largest number is 65504.

    numbers: of the L layers, None for the final output, for the ValueError that names the first that holds NaN,
    infinity or what is too large. remedy: at its end.
    """
    with np.errstate(over="ignore"):
        kept = layers.astype(dtype)
    fits_L = np.isfinite(kept).all(-1).reshape(-1, len(numbers)).all(0)
    if not fits_L.all():
        strange = int(fits_L.argmin())
        is_number = np.isfinite(layers[..., strange, :]).all()
        what = f"numbers beyond {np.finfo(dtype).max:.0f}, as which they are kept," if is_number else "NaN or infinity"
        layer = "the output" if numbers[strange] is None else f"layer {numbers[strange]}"
        which = f"clip {clip_id!r}" if clip_id else "the clip"
        raise ValueError(f"{which}: {layer} of the encoder says {what} of it; {remedy}")
    return kept
