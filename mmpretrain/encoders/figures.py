"""What is measured of an encoder, put on its card as soon as it is known: health of its rounds, figures of its tests.

`figures.json` lies beside the encoder, for its cards in other formats too. No stage reads it to decide anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mmpretrain.encoders.card import CARD_FILE, model_card
from mmpretrain.encoders.folder import read_config, read_tasks, read_training_data
from mmpretrain.files import present_folder, read_json, write_json, write_text

FIGURES_FILE = "figures.json"


def read_figures(path: str | Path) -> dict[str, str]:
    """By what was measured, how it came out, in words; empty where nothing is known. Raises ValueError."""
    file = present_folder(path) / FIGURES_FILE
    remedy = "remove it: nothing but the cards needs it"
    found = read_json(file, if_missing={}, remedy=remedy)
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ValueError(f"{file} does not have a text for each of its names; {remedy}")
    return found


def add_figures(path: str | Path, figures: Mapping[str, str]) -> bool:
    """Adds them to those of an encoder's folder, and to its card. Returns whether the card has them now: one that
    somebody has changed or taken away is left as it is."""
    folder = present_folder(path)
    known = read_figures(folder)
    made, card = known | figures, folder / CARD_FILE
    (config, lineage), data, tasks = read_config(folder), read_training_data(folder), read_tasks(folder)
    ours = card.exists() and card.read_text() == model_card(config, lineage, data, tasks, figures=known)
    if made != known:
        write_json(folder / FIGURES_FILE, made)
        if ours:
            write_text(card, model_card(config, lineage, data, tasks, figures=made))
    return ours
