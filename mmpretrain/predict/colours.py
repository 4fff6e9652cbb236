"""A colour for each class, the same in videos and plots. Told apart by colour-blind people too (Okabe and Ito)."""

from __future__ import annotations

COLOURS = (
    (120, 120, 120), (0, 114, 178), (240, 228, 66), (86, 180, 233), (213, 94, 0), (204, 121, 167), (0, 158, 115),
    (230, 159, 0), (150, 70, 140), (170, 210, 120), (110, 60, 20), (60, 60, 160), (30, 30, 30),
)  # fmt: skip


def on(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever is read better on it (luma of Rec. 601)."""
    red, green, blue = colour
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)


def colours(count: int) -> list[tuple[int, int, int]]:
    """RGB from 0 to 255; more classes than there are colours share them."""
    return [COLOURS[i % len(COLOURS)] for i in range(count)]
