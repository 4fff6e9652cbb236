"""How large a file may be once it is decoded: far above any recording of people who talk, far below what takes a
machine down. Headers are asked before anything is decoded, and what decodes as well, since headers lie."""

from __future__ import annotations

import av

MAX_PIXELS = 40_000_000  # 8K is 33 million
MAX_PIXEL_ASPECT = 8.0  # the widest pixels in use are 2.4 times as wide as high
SAMPLE_RATES_HZ = (1000, 1_000_000)
MAX_CHANNELS = 64
MAX_HOURS = 6.0
DECODER_OPTIONS = {"max_pixels": str(MAX_PIXELS)}  # a decoder refuses more before it takes memory for it


def check_picture(width: int, height: int, pixel_aspect: float) -> None:
    """Raises ValueError. width, height: before pixels are made square."""
    if not 1 / MAX_PIXEL_ASPECT <= pixel_aspect <= MAX_PIXEL_ASPECT:
        raise ValueError(f"says that its pixels are {pixel_aspect:.3g} times as wide as they are high")
    if width * height * max(pixel_aspect, 1.0) > MAX_PIXELS:
        raise ValueError(
            f"its picture is too large: {round(width * pixel_aspect)} x {height}, more than {MAX_PIXELS / 1e6:.0f} "
            "million pixels"
        )


def check_sound(sample_rate: int, channels: int) -> None:
    """Raises ValueError. 0 stands for what is not known."""
    lowest, highest = SAMPLE_RATES_HZ
    if sample_rate and not lowest <= sample_rate <= highest:
        raise ValueError(f"says that its sound has {sample_rate} samples a second; {lowest} to {highest} can be read")
    if channels > MAX_CHANNELS:
        raise ValueError(f"its sound has {channels} channels, more than {MAX_CHANNELS}")


def check_frame(frame: av.frame.Frame, sec: float) -> None:
    """Raises ValueError. sec: its time since the clip began."""
    if sec > MAX_HOURS * 3600:
        raise ValueError(f"goes on {sec / 3600:.1f} h after its beginning, more than {MAX_HOURS:.0f} h: cut it first")
    if isinstance(frame, av.VideoFrame):
        check_picture(frame.width, frame.height, 1.0)
    else:
        check_sound(frame.sample_rate, frame.layout.nb_channels)
