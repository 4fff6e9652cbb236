"""What is done to a recording before an encoder sees it, in numbers: part of the folder, so that it says all of it."""

from __future__ import annotations

from typing import Any

from mmpretrain.config import ModelConfig, shown
from mmpretrain.features import filterbank, mean_face, spectrum
from mmpretrain.records import FRAME_RATE_HZ, SAMPLE_RATE_HZ

MAX_CROP_SIZE = 2**15


def preprocessing(config: ModelConfig, crop_size: int) -> dict[str, Any]:
    """For `config.json`. crop_size: the side of the crops, of which the encoder takes the middle."""
    inputs = config.inputs
    square = {"mouth_side": mean_face.MOUTH_SIDE, "face_square": list(mean_face.FACE_SQUARE)}
    sound = {
        "rate_hz": SAMPLE_RATE_HZ, "pre_emphasis": filterbank.PRE_EMPHASIS, "window_samples": spectrum.WINDOW,
        "hop_samples": spectrum.HOP, "fft_size": spectrum.FFT_SIZE, "mel_bands": filterbank.NUM_BANDS,
        "stacked": spectrum.STACK, "normalization": inputs.audio_normalization,
    }  # fmt: skip
    picture = {
        "rate_hz": FRAME_RATE_HZ, "colour": "grey", "view": inputs.view, "crop_size": crop_size,
        "image_size": inputs.image_size, "mean": inputs.pixel_mean, "std": inputs.pixel_std,
        "frame_side": mean_face.FRAME_SIDE, "mean_face": [list(point) for point in mean_face.MEAN_FACE], **square,
        "smoothing_frames": mean_face.SMOOTHING_FRAMES,
    }  # fmt: skip
    made = {"audio": sound, "video": picture}
    return {name: made[name] for name in config.modalities if name in made}


def crop_size_of(config: ModelConfig, found: Any) -> int:
    """The side of the crops by what `preprocessing` wrote. Raises ValueError for what this program does not do."""
    size = found["video"].get("crop_size") if _has_video(found) else mean_face.CROP_SIZES[config.inputs.view]
    whole = isinstance(size, int) and not isinstance(size, bool)
    if "video" in config.modalities and not (whole and config.inputs.image_size <= size <= MAX_CROP_SIZE):
        raise ValueError(
            f"preprocessing.video.crop_size={shown(size)}; it must be a number of pixels, at least "
            f"model.inputs.image_size={config.inputs.image_size}"
        )
    ours = preprocessing(config, size)
    if found != ours:
        wrong = next(
            (f"{name}.{key}" for name, of in ours.items() for key in of if _get(found, name, key) != of[key]), "it"
        )
        raise ValueError(f"preprocessing: {wrong} is not as this program prepares clips, or as `model` says")
    return size


def default_crop_size(config: ModelConfig) -> int:
    """That of preparation, or the encoder's own where it takes more."""
    return max(mean_face.CROP_SIZES[config.inputs.view], config.inputs.image_size)


def _has_video(found: Any) -> bool:
    return isinstance(found, dict) and isinstance(found.get("video"), dict)


def _get(found: Any, name: str, key: str) -> Any:
    return found[name].get(key) if isinstance(found, dict) and isinstance(found.get(name), dict) else None
