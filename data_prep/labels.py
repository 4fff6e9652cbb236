"""The label columns of the corpora: one name, kind and meaning everywhere, so that corpora can be mixed."""

from __future__ import annotations

import math

# By name the kind (see `records.LABEL_KINDS`).
COLUMNS = {
    "emotion": "class",  # one of `records.EMOTIONS`: what was to be shown, or what the makers agreed on
    "emotion4": "class",  # neutral, happy (excited too), sad, angry: the usual four classes of IEMOCAP
    "perceived": "class",  # what most raters saw and heard, where that is another question than `emotion`
    "perceived_voice": "class",  # ... of those who only heard it
    "perceived_face": "class",  # ... of those who only saw it
    "perceived_level": "value",  # how strong they found it, 0 to 1
    "votes": "classes",  # a word for each vote
    "intensity": "class",  # how strong it was to be shown, in the corpus's own words
    "valence": "value",  # -1 (unpleasant) to 1
    "arousal": "value",  # -1 (calm) to 1
    "dominance": "value",  # -1 (weak) to 1
    "valence_class": "class",  # of MuSe: 0 to 4
    "arousal_class": "class",
    "sentiment": "class",  # negative, neutral, positive
    "text": "text",
    "language": "class",
    "style": "class",  # improvised, scripted, read, natural
    "sex": "class",  # female, male
    "age": "value",  # years
    "race": "class",  # in the corpus's own words
    "session": "class",
    "dialogue": "class",
    "turn": "value",  # within the dialogue, counted as the corpus does
}


def columns(*names: str) -> dict[str, str]:
    """These columns with their kinds."""
    return {name: COLUMNS[name] for name in names}


def on_scale(word: str, low: float, high: float) -> float:
    """What a word of the scale from low to high is on ours from -1 to 1. Raises ValueError for none of it."""
    value = float(word)
    if not low <= value <= high:
        raise ValueError(f"{word} is not between {low:g} and {high:g}")
    return between(value, low, high)


def figure(word: str) -> float | str:
    """The number that a word is, else the word."""
    try:
        return value if math.isfinite(value := float(word)) else word
    except ValueError:
        return word


def between(value: float, low: float, high: float) -> float:
    """A value of the scale from low to high on ours from -1 to 1."""
    return (2 * value - low - high) / (high - low)
