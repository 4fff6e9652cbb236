"""Encoders of other projects, by the folder that transformers keeps them in: for sound, or for pictures.

Needs the extra `torch`. Weights are read from safetensors alone, and no code that lies in a folder is run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.records import SAMPLE_RATE_HZ, Clip

READS = {"input_values": "audio", "pixel_values": "video"}  # by the model's main input
IMAGES_AT_ONCE = 64


class ForeignEncoder:
    """What transformers' `AutoModel` makes of a folder; `modality` says what of a clip it takes.

    Raises FileNotFoundError for no such folder, and ValueError where it is none of transformers' models, takes neither
    samples nor pictures, has no safetensors, or the extra `torch` is not installed.
    """

    def __init__(self, folder: Path):
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} has no config.json; give the folder of a model that transformers saved")
        try:
            import torch
            from transformers import AutoImageProcessor, AutoModel
        except ImportError as error:
            raise ValueError(
                f"{folder}: encoders of other projects need torch and transformers ({error}): pip install "
                "'mmpretrain-jax[torch]'"
            ) from error
        self.folder, self._torch = folder, torch
        try:
            self._model = AutoModel.from_pretrained(folder, use_safetensors=True, local_files_only=True).eval()
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{folder} is no model that transformers reads: {str(error).splitlines()[0]}") from error
        if self._model.main_input_name not in READS:
            raise ValueError(
                f"{folder}: a {self._model.config.model_type} takes {self._model.main_input_name}; sound "
                "(input_values) and pictures (pixel_values) can be given to it"
            )
        self.modality = READS[self._model.main_input_name]
        self._pictures = None
        if self.modality == "video":
            try:
                self._pictures = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
            except (OSError, ValueError) as error:
                raise ValueError(f"{folder} has no preprocessor_config.json, which says how pictures go in") from error
        settings = folder / "preprocessor_config.json"
        self._normalize = settings.is_file() and bool(json.loads(settings.read_text()).get("do_normalize"))

    @property
    def fingerprint(self) -> dict[str, Any]:
        """Changes with its weights: of each file of weights its name and size, and when it was written."""
        files = [*sorted(self.folder.glob("*.safetensors")), self.folder / "config.json"]
        return {"files": [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]}

    def layers(self, clip: Clip) -> np.ndarray:
        """float32 [L, T, D]: what every layer says, from what the first one takes on; T of its own rate, 1 at least."""
        with self._torch.inference_mode():
            return self._of_sound(clip.audio) if self.modality == "audio" else self._of_pictures(clip.face)

    def _of_sound(self, audio: np.ndarray) -> np.ndarray:
        sound = np.pad(audio.astype(np.float32) / 32768, (0, max(0, SAMPLE_RATE_HZ // 40 - len(audio))))
        if self._normalize:  # as Wav2Vec2FeatureExtractor does
            sound = (sound - sound.mean()) / np.sqrt(sound.var() + 1e-7)
        states = self._model(self._torch.from_numpy(sound)[None], output_hidden_states=True).hidden_states
        return np.stack([state[0].numpy() for state in states])

    def _of_pictures(self, face_THW: np.ndarray) -> np.ndarray:
        """A frame is the mean over what the model makes of its patches."""
        parts = []
        for first in range(0, len(face_THW), IMAGES_AT_ONCE):
            pictures = [np.repeat(picture[..., None], 3, -1) for picture in face_THW[first : first + IMAGES_AT_ONCE]]
            pixels = self._pictures(images=pictures, return_tensors="pt")["pixel_values"]
            states = self._model(pixels, output_hidden_states=True).hidden_states
            means = [(state.flatten(2).mean(-1) if state.ndim == 4 else state.mean(1)).numpy() for state in states]
            parts.append(np.stack([mean for mean in means if mean.shape == means[-1].shape]))
        return np.concatenate(parts, axis=1)
