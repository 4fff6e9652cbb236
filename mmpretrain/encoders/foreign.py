"""Encoders of other projects, by the folder that transformers keeps them in: for sound, or for pictures.

Needs the extra `torch`. Weights are read from safetensors alone, and no code that lies in a folder is run.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.data.windows import windows
from mmpretrain.files import known_digest, read_json
from mmpretrain.output import first_line
from mmpretrain.records import SAMPLE_RATE_HZ, SAMPLES_PER_FRAME, Clip

READS = {"input_values": "audio", "pixel_values": "video"}  # by the model's main input
IMAGES_AT_ONCE = 64
# How clips go in: of sound or of pictures alone, or, as transformers 5 saves a processor, a part of its settings.
SETTINGS_FILE, PROCESSOR_FILE = "preprocessor_config.json", "processor_config.json"
PARTS = {"audio": "feature_extractor", "video": "image_processor"}


def is_foreign(folder: Path) -> bool:
    """Whether transformers' `save_pretrained` wrote the folder, by its config.json alone."""
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "model_type" in config and "format" not in config


def foreign_fingerprint(folder: Path) -> str:
    """The folder's name and 16 hex digits of its weights and settings: the same wherever it lies."""
    settings = (folder / SETTINGS_FILE, folder / PROCESSOR_FILE)
    files = [folder / "config.json", *settings, *sorted(folder.glob("*.safetensors"))]
    made_of = []
    for file in filter(Path.is_file, files):
        made_of.append([file.name, known_digest(file)])
    return f"{folder.resolve().name}-{hashlib.blake2b(json.dumps(made_of).encode(), digest_size=8).hexdigest()}"


def what_it_reads(folder: Path) -> str:
    """What of a clip the model of a folder takes, "audio", "video" or "text"; else the name of its main input.

    Raises what `ForeignEncoder` does.
    """
    reads = _main_input(folder)[1]
    return "text" if reads == "input_ids" else READS.get(reads, reads)


def _main_input(folder: Path) -> tuple[Any, str]:
    """The configuration of a folder's model, and the name of what it takes first."""
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} has no config.json; give the folder of a model that transformers saved")
    try:
        import torch  # noqa: F401
        import transformers
    except ImportError as error:
        raise ValueError(
            f"{folder}: encoders of other projects need torch and transformers ({error}): pip install "
            "'mmpretrain-jax[torch]'"
        ) from error
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        kind = transformers.MODEL_MAPPING[type(config)]
    except Exception as error:  # settings of a wrong type raise what is of a library of theirs
        raise _not_read(folder, error) from error
    if config.model_type.startswith("pe_"):  # its video tower goes by the names of texts, and sound is of 48 kHz
        raise ValueError(
            f"{folder}: a {config.model_type}, of PE-AV, takes sound of 48 kHz, RGB pictures and texts together, which "
            "there is no adapter for; take a model of one of them"
        )
    return config, (kind[0] if isinstance(kind, tuple) else kind).main_input_name


def _settings(folder: Path, part: str) -> dict[str, Any]:
    """How clips go in, found where transformers looks for it; empty where nothing says so. Raises ValueError."""
    remedy = "save the model's processor there again"
    found = read_json(folder / PROCESSOR_FILE, if_missing={}, remedy=remedy).get(part)
    return found if isinstance(found, dict) else read_json(folder / SETTINGS_FILE, if_missing={}, remedy=remedy)


def _not_read(folder: Path, error: Exception) -> ValueError:
    return ValueError(f"{folder} is no model that transformers reads: {first_line(error)}")


class ForeignEncoder:
    """What transformers' `AutoModel` makes of a folder; `modality` says what of a clip it takes.

    Weights are loaded when they are first asked for. Raises FileNotFoundError for no such folder, and ValueError where
    it is none of transformers' models, takes neither samples nor pictures, has no safetensors, or the extra `torch` is
    not installed.
    """

    def __init__(self, folder: Path):
        self.config, reads = _main_input(folder)
        import torch
        import transformers

        self.folder, self._torch, self._transformers, self._lock = folder, torch, transformers, threading.Lock()
        if reads not in READS:
            raise ValueError(
                f"{folder}: a {self.config.model_type} takes {reads}; sound (input_values) and pictures "
                "(pixel_values) can be given to it"
            )
        self.modality = READS[reads]
        settings = _settings(folder, PARTS[self.modality])
        self._normalize = bool(settings.get("do_normalize"))
        if self.modality == "video" and not settings:
            raise ValueError(f"{folder} has no {SETTINGS_FILE}, which says how pictures go in")
        if self.modality == "audio" and (rate := settings.get("sampling_rate", SAMPLE_RATE_HZ)) != SAMPLE_RATE_HZ:
            raise ValueError(
                f"{folder}: sampling_rate={rate!r}, but clips have sound of {SAMPLE_RATE_HZ} Hz; take a model of that"
            )

    @property
    def width(self) -> int:
        """The dims of its layers. Raises ValueError where they are not of one width."""
        width = getattr(self.config, "hidden_size", None)
        if not isinstance(width, int) or hasattr(self.config, "hidden_sizes") or hasattr(self.config, "depths"):
            raise ValueError(
                f"{self.folder}: the layers of a {self.config.model_type} are not of one width; take a model whose are"
            )
        return width

    @property
    def num_layers(self) -> int:
        return int(self.config.num_hidden_layers)

    @functools.cached_property
    def _model(self) -> Any:
        with self._lock:  # threads ask at once
            if "_model" in vars(self):
                return vars(self)["_model"]
            try:
                model = self._transformers.AutoModel.from_pretrained(
                    self.folder, use_safetensors=True, local_files_only=True
                )
            except Exception as error:
                raise _not_read(self.folder, error) from error
            vars(self)["_model"] = model.eval()
            return model

    @functools.cached_property
    def _pictures(self) -> Any:
        try:
            return self._transformers.AutoImageProcessor.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.folder} does not say how pictures go in: {first_line(error)}") from error

    @property
    def fingerprint(self) -> str:
        return foreign_fingerprint(self.folder)

    def layers(self, clip: Clip) -> np.ndarray:
        """float32 [L + 1, T, D]: row 0 what the first layer takes, row n what layer n makes of it.

        T of its own rate, 1 at least. Raises ValueError where one is NaN or infinite.
        """
        if self.modality == "video":
            return self._finite(self._of_pictures(clip.face), clip)
        short = max(0, SAMPLE_RATE_HZ // 40 - len(clip.audio))
        return self._finite(self._of_sound(self._scaled(np.pad(clip.audio, (0, short)))), clip)

    def frames(self, clip: Clip) -> np.ndarray:
        """float32 [L + 1, T, D]: as `layers`, of every frame of 40 ms, the mean of the states there.

        Sound goes in with half of what a state hears more than its hop before and behind it, so that each state is of
        its own hop; clips over a minute in windows. Raises ValueError where the model has no such rate, or says NaN or
        infinity.
        """
        if self.modality == "video":
            return self._finite(self._of_pictures(clip.face), clip)
        hop, hears = self._hop
        T, before = clip.num_frames, (hears - hop) // 2
        sound = self._scaled(clip.audio[: T * SAMPLES_PER_FRAME])
        sound = np.pad(sound, (0, T * SAMPLES_PER_FRAME - len(sound)))
        made = []
        for window, own in windows(T):
            part = sound[window.start * SAMPLES_PER_FRAME : window.stop * SAMPLES_PER_FRAME]
            states_LSD = self._of_sound(np.pad(part, (before, hears - hop - before)))
            made.append(_means(states_LSD, len(window))[:, own.start - window.start : own.stop - window.start])
        return self._finite(np.concatenate(made, axis=1), clip)

    def _finite(self, layers_LTD: np.ndarray, clip: Clip) -> np.ndarray:
        if len(strange := np.flatnonzero(~np.isfinite(layers_LTD).all((1, 2)))):
            raise ValueError(
                f"{self.folder}: layer {strange[0]} says NaN or infinity of clip {clip.clip_id!r}; its weights are "
                "damaged, or too coarse: save it in float32, or take another model"
            )
        return layers_LTD

    @functools.cached_property
    def _hop(self) -> tuple[int, int]:
        """Samples from one state to the next, and those that one hears."""
        try:
            strides, kernels = list(self.config.conv_stride), list(self.config.conv_kernel)
        except (AttributeError, TypeError) as error:
            raise ValueError(
                f"{self.folder}: the config.json of a {self.config.model_type} does not say how long its states are "
                "(conv_stride, conv_kernel); take one of the kind of wav2vec 2.0, HuBERT or WavLM"
            ) from error
        hop = math.prod(strides)
        if hop > SAMPLES_PER_FRAME:
            raise ValueError(
                f"{self.folder}: a state is of {hop} samples, more than the {SAMPLES_PER_FRAME} of a frame"
            )
        hears = 1 + sum((kernel - 1) * math.prod(strides[:i]) for i, kernel in enumerate(kernels))
        return hop, hears

    def _scaled(self, audio: np.ndarray) -> np.ndarray:
        sound = audio.astype(np.float32) / 32768
        if self._normalize:  # as Wav2Vec2FeatureExtractor does
            sound = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
        return sound

    def _of_sound(self, sound: np.ndarray) -> np.ndarray:
        return np.stack([state[0].numpy() for state in self._states(self._torch.from_numpy(sound)[None])])

    def _states(self, given: Any) -> tuple[Any, ...]:
        """What every layer makes of the model's main input. Raises ValueError where the model wants something else."""
        with self._torch.inference_mode():
            try:
                return tuple(self._model(given, output_hidden_states=True).hidden_states)
            except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
                takes = {"audio": "samples of 16 kHz, [clips, samples]", "video": "pictures, [frames, 3, side, side]"}
                raise ValueError(
                    f"{self.folder}: a {self.config.model_type} does not say what its layers make of "
                    f"{takes[self.modality]} ({first_line(error)}); take one of the kind of wav2vec 2.0, HuBERT or "
                    "WavLM, or ViT"
                ) from error

    def _of_pictures(self, face_THW: np.ndarray) -> np.ndarray:
        """A frame is the mean over what the model makes of its patches."""
        parts = []
        for first in range(0, len(face_THW), IMAGES_AT_ONCE):
            pictures = [np.repeat(picture[..., None], 3, -1) for picture in face_THW[first : first + IMAGES_AT_ONCE]]
            pixels = self._pictures(images=pictures, return_tensors="pt")["pixel_values"]
            states = self._states(pixels)
            means = [(state.flatten(2).mean(-1) if state.ndim == 4 else state.mean(1)).numpy() for state in states]
            parts.append(np.stack([mean for mean in means if mean.shape == means[-1].shape]))
        return np.concatenate(parts, axis=1)


def _means(states_LSD: np.ndarray, num_frames: int) -> np.ndarray:
    """[L, T, D]: the means over equal shares of at least as many states as frames."""
    S = states_LSD.shape[1]
    starts = np.arange(num_frames + 1) * S // num_frames
    return np.add.reduceat(states_LSD, starts[:-1], axis=1) / np.diff(starts)[:, None].astype(np.float32)
