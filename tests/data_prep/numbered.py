"""Films whose pictures bear their number and whose sound rises, in the containers that people have."""

import heapq
import itertools
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT = 80, 48
X264 = "keyint=60:bframes=3:scenecut=0"


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """RGB uint8 [height, width, 3]: ten fields, white where the number has a bit, at the same share of any size."""
    bits = np.array([number >> bit & 1 for bit in range(10)], np.uint8).reshape(2, 5) * 255
    return np.repeat(bits[np.arange(height) * 2 // height][:, np.arange(width) * 5 // width][..., None], 3, axis=-1)


def number_of(rgb: np.ndarray) -> int:
    height, width = rgb.shape[:2]
    rows, columns = (np.array([1, 3]) * height) // 4, (np.arange(5) * 2 + 1) * width // 10
    return sum(int(white) << bit for bit, white in enumerate((rgb[rows][:, columns].mean(-1) > 128).ravel()))


def chirp(seconds: float, rate: int, from_sec: float = 0.0) -> np.ndarray:
    """int16 [N], slow enough that a millisecond is a small step."""
    time = from_sec + np.arange(int(seconds * rate)) / rate
    return (8000 * np.sin(2 * np.pi * (20 * time + time**2))).astype(np.int16)


def write_film(
    path: Path,
    video: str | None,
    audio: str | None,
    *,
    seconds: float = 8.0,
    first: int = 0,
    rate: int = 16_000,
    key_every: int = 60,
    b_frames: int | None = 0,
    x264: str = X264,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    aspect: Fraction | None = None,
) -> Path:
    """Pictures first, first + 1, ... at 25 fps and the sound of that time. aspect: of the pixels."""
    with av.open(str(path), "w") as container:
        streams = []
        if video:
            options = {"x264-params": x264} if video == "libx264" else {"deadline": "realtime", "cpu-used": "8"}
            stream = container.add_stream(video, rate=25, options=options if video.startswith("lib") else {})
            stream.width, stream.height = size
            stream.pix_fmt = "yuvj420p" if video == "mjpeg" else "yuv420p"
            if aspect:
                stream.codec_context.sample_aspect_ratio = aspect
            stream.gop_size, stream.bit_rate = key_every, 500_000
            if b_frames is not None:
                stream.codec_context.max_b_frames = b_frames
            streams.append((stream, _pictures(round(seconds * 25), first, size)))
        if audio:
            streams.append((container.add_stream(audio, rate=rate, layout="mono"), _sound(seconds, rate, first / 25)))
        # In the order of time, as a recorder writes them.
        timed = [zip(itertools.repeat(stream), frames) for stream, frames in streams]
        for stream, frame in heapq.merge(*timed, key=lambda pair: pair[1].pts * pair[1].time_base):
            container.mux(stream.encode(frame))
        for stream, _ in streams:
            container.mux(stream.encode(None))
    return path


def _pictures(count: int, first: int, size: tuple[int, int]):
    for k in range(count):
        frame = av.VideoFrame.from_ndarray(picture(first + k, *size), "rgb24")
        frame.pts, frame.time_base = k, Fraction(1, 25)
        yield frame


def _sound(seconds: float, rate: int, from_sec: float):
    samples = chirp(seconds, rate, from_sec)
    for start in range(0, len(samples), 1024):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], "s16", "mono")
        frame.rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        yield frame


def shifted(path: Path, source: Path, sec: float) -> Path:
    """A copy whose clock is that much later."""
    with av.open(str(source)) as container, av.open(str(path), "w") as output:
        streams = {stream.index: output.add_stream_from_template(stream) for stream in container.streams}
        for packet in container.demux():
            if packet.dts is not None:
                step = round(sec / packet.time_base)
                packet.pts, packet.dts = packet.pts + step, packet.dts + step
                packet.stream = streams[packet.stream_index]
                output.mux(packet)
    return path


def joined(path: Path, *sources: Path) -> Path:
    """The bytes of files, one after the other."""
    path.write_bytes(b"".join(source.read_bytes() for source in sources))
    return path
