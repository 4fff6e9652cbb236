"""Small media files whose content tells its own time, written with PyAV and the wave module."""

import struct
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 16_000


def write_wav(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    """samples: int16 [N] or [N, channels]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = samples.reshape(len(samples), -1)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def tone(seconds: float, rate: int = RATE, hz: float = 440.0) -> np.ndarray:
    return (8000 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.int16)


def write_mkv(path: Path, stamps_ms: list[int], audio: np.ndarray | None = None, audio_from_ms: int = 0) -> Path:
    """Frame k is grey of level 10 k, stamped stamps_ms[k], lossless. audio: int16 [N] at 16 kHz."""
    millisecond = Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "gray"
        video.time_base = video.codec_context.time_base = millisecond
        sound = None
        if audio is not None:
            sound = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        packets = []
        for k, stamp in enumerate(stamps_ms):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64), 10 * k, np.uint8), "gray")
            frame.pts, frame.time_base = stamp, millisecond
            packets += video.encode(frame)
        packets += video.encode()
        if sound is not None:
            for start in range(0, len(audio), 320):
                frame = av.AudioFrame.from_ndarray(audio[None, start : start + 320], "s16", "mono")
                frame.rate = RATE
                frame.pts, frame.time_base = start + audio_from_ms * RATE // 1000, Fraction(1, RATE)
                packets += sound.encode(frame)
            packets += sound.encode()
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            container.mux(packet)
    return path


def write_mp4(path: Path, num_frames: int = 10, fps: int = 25) -> Path:
    """A white square in the upper left of a black 96 x 64 picture."""
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[:24, :24] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=fps)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        for _ in range(num_frames):
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(video.encode())
    return path


def turn(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Writes a display matrix into the header of an mp4, as a telephone held upright does."""
    content = bytearray(path.read_bytes())
    matrix = content.find(b"tkhd") + 4 + 4 + 20 + 16
    fixed = 1 << 16
    content[matrix : matrix + 36] = struct.pack(">9i", a * fixed, b * fixed, 0, c * fixed, d * fixed, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path
