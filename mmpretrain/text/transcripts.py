"""What a language model of a folder, read by transformers, makes of what is spoken.

transformers and torch come with `pip install mmpretrain-jax[text]`, and are imported where a model is loaded alone.
Dims: B turns, L tokens, D numbers a token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmpretrain.output import first_line

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model")
WEIGHTS_FILES = ("model.safetensors", "model.safetensors.index.json")  # those of torch.save are pickles, and not read
AT_ONCE = 32  # turns


class Turn(NamedTuple):
    """What somebody says; `before`: what was said before it in the dialogue, oldest first, each with its speaker."""

    text: str
    before: tuple[str, ...] = ()


FIELD = "finetune.text.encoder"  # that names the folder


def folder_digest(folder: str | Path, field: str = FIELD) -> str:
    """16 hex digits of all files of a model's folder. Raises ValueError, naming the field, where it cannot be one."""
    folder = Path(folder)
    if not (folder / "config.json").exists():
        raise ValueError(f"{field}={str(folder)!r} is no model of transformers: it has no config.json")
    for what, names in (("tokenizer", TOKENIZER_FILES), ("weights", WEIGHTS_FILES)):
        if not any((folder / name).exists() for name in names):
            raise ValueError(
                f"{field}={str(folder)!r} has no {what} (none of {', '.join(names)}); save it there by "
                "`save_pretrained`"
            )
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(file.name.encode())
        with open(file, "rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


class TextEncoder:
    """A model and its tokenizer. field: that names the folder.

    Raises ValueError for a folder that holds none, ImportError without transformers.
    """

    def __init__(self, folder: str | Path, max_tokens: int, field: str = FIELD):
        try:
            import torch
            from transformers import AutoModel, AutoTokenizer
        except ImportError as error:
            raise ImportError(
                f"{field}={str(folder)!r} needs transformers and torch ({error}): pip install 'mmpretrain-jax[text]'"
            ) from error
        folder_digest(folder, field)
        self._named = f"{field}={str(folder)!r}"
        self._torch, self._max_tokens = torch, max_tokens
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            # What was said before is cut, which a slow one is never given.
            self._tokenizer.truncation_side = "left" if self._tokenizer.is_fast else "right"
            self._model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
        except Exception as error:  # a tokenizer that is damaged raises a plain one
            raise ValueError(f"{self._named} cannot be loaded: {first_line(error)}") from error
        if not isinstance(getattr(self._model.config, "hidden_size", None), int):
            kind = self._model.config.model_type
            raise ValueError(f"{self._named}: a {kind} is no model of texts alone; take one like BERT")
        most = int(getattr(self._model.config, "max_position_embeddings", 512))
        self._longest = (
            most - 2 if getattr(self._model.config, "model_type", "") in ("roberta", "xlm-roberta") else most
        )

    @property
    def dim(self) -> int:
        return int(self._model.config.hidden_size)

    @property
    def at_once(self) -> int:
        """How many turns `tokens` takes best; one where the tokenizer cannot pad."""
        return AT_ONCE if self._tokenizer.pad_token is not None else 1

    def tokens(self, turns: Sequence[Turn]) -> list[np.ndarray]:
        """Of each turn float32 [L, D]: the last layer at its tokens, at most `max_tokens` of them, the first.

        What was said before is read too, as far as it fits, and has no tokens of its own here. Of a turn that is longer
        than the model reads at once it reads the beginning. Empty: [0, D].
        """
        return [layers_SLD[-1] for layers_SLD in self._states(turns, layers=False)]

    def layers(self, turns: Sequence[Turn]) -> list[np.ndarray]:
        """The same of every layer, float32 [S + 1, L, D], row 0 being what the first takes."""
        return self._states(turns, layers=True)

    def _beginning(self, text: str) -> str:
        """Of a text what the model reads at once."""
        room = self._longest - self._tokenizer.num_special_tokens_to_add()
        if not self._tokenizer.is_fast or len(text.encode()) <= room:  # a token has a byte or more
            return text
        found = self._tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)
        places = found["offset_mapping"]
        return text[: places[room - 1][1]] if len(places) > room else text

    def _states(self, turns: Sequence[Turn], *, layers: bool) -> list[np.ndarray]:
        """[S, L, D] of each turn, the last layer last, or it alone; [1, 0, D] of one without a text."""
        made = [np.zeros((1, 0, self.dim), np.float32) for _ in turns]
        spoken = [i for i, turn in enumerate(turns) if turn.text.strip()]
        if not spoken:
            return made
        if not self._tokenizer.is_fast and any(turns[i].before for i in spoken):
            raise ValueError(
                f"{self._named}: its tokenizer does not say where its tokens stand, so that those of a turn cannot be "
                "told from what was said before; set finetune.text.context=0, or take a model with a fast tokenizer"
            )
        separator = f" {self._tokenizer.sep_token or ''} "
        own = [self._beginning(turns[i].text) for i in spoken]
        whole = [separator.join((*turns[i].before, text)) for i, text in zip(spoken, own, strict=True)]
        given = dict(truncation=True, max_length=self._longest, padding=len(whole) > 1, return_special_tokens_mask=True)
        offsets: dict[str, Any] = {"return_offsets_mapping": True} if self._tokenizer.is_fast else {}
        encoded = self._tokenizer(whole, return_tensors="pt", **given, **offsets)
        there_BL = encoded["attention_mask"].numpy() > 0
        own_BL = there_BL & (encoded.pop("special_tokens_mask").numpy() == 0)
        if offsets:
            starts = np.array([len(text) - len(last) for text, last in zip(whole, own, strict=True)])
            own_BL &= encoded.pop("offset_mapping")[..., 1].numpy() > starts[:, None]
        with self._torch.no_grad():
            try:
                said = self._model(**encoded, output_hidden_states=layers)
                states = said.hidden_states if layers else (said.last_hidden_state,)
            except (AttributeError, TypeError, ValueError) as error:
                raise ValueError(f"{self._named} does not read texts alone: {first_line(error)}") from error
            except (IndexError, RuntimeError) as error:
                raise ValueError(
                    f"{self._named} fails on what its tokenizer makes of texts ({first_line(error)}); put the "
                    "tokenizer there that the model was trained with"
                ) from error
        states_BSLD = np.stack([state.float().numpy() for state in states], axis=1)
        with np.errstate(over="ignore"):
            fits_BSL = np.isfinite(states_BSLD.astype(np.float16)).all(-1)  # as what it says is kept
        if len(strange := np.flatnonzero(~(fits_BSL | ~there_BL[:, None]).all((1, 2)))):
            raise ValueError(
                f"{self._named} says NaN, infinity or more than 65504 of {turns[spoken[strange[0]]].text!r}; its "
                "weights are damaged, or too coarse: save it in float32, or take another model"
            )
        for i, states_SLD, own_L, there_L in zip(spoken, states_BSLD, own_BL, there_BL, strict=True):
            made[i] = states_SLD[:, own_L if own_L.any() else there_L][:, : self._max_tokens]
        return made


def with_context(
    texts: Sequence[str], speakers: Sequence[str], dialogues: Sequence[str], turns: Sequence[float], context: int
) -> list[Turn]:
    """Each text with the `context` turns before it in its dialogue, never those after it.

    dialogues: "" for none; turns: NaN where it is not known when.
    """
    of_dialogue: dict[str, list[int]] = {}
    for i, dialogue in enumerate(dialogues):
        if dialogue and not np.isnan(turns[i]):
            of_dialogue.setdefault(dialogue, []).append(i)
    before: dict[int, tuple[str, ...]] = {}
    for rows in of_dialogue.values():
        rows.sort(key=lambda i: turns[i])
        for i in rows:
            earlier = [j for j in rows if turns[j] < turns[i] and texts[j].strip()]
            earlier = earlier[-context:] if context else []
            before[i] = tuple(f"{speakers[j]}: {texts[j]}" if speakers[j] else texts[j] for j in earlier)
    return [Turn(text, before.get(i, ())) for i, text in enumerate(texts)]
