"""MELD: utterances of the television series Friends, with the emotion and sentiment of each, in its official splits."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from data_prep.corpus import SOURCE, Corpus
from data_prep.labels import columns
from data_prep.sources import (
    Official,
    SourceClip,
    best_file,
    media_files,
    standard_emotion,
    standard_split,
    why_missing,
)
from data_prep.tables import Row, find_table, read_table
from mmpretrain.listing import readable

# By the corpus's own word for the split: the folders that its archive may unpack to.
_FOLDERS = {
    "train": ("train_splits",),
    "dev": ("dev_splits_complete",),
    "test": ("output_repeated_splits_test",),
}
_COLUMNS = ("Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID", "Season", "Episode",
            "StartTime", "EndTime")  # fmt: skip
_BROKEN = {"train/dia125_utt3", "dev/dia110_utt7"}
_SENTIMENTS = {word: word for word in ("negative", "neutral", "positive")}
_LONGEST_SEC = 60.0  # the longest utterance but two is 41 s long
_PLAIN = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u2026": "...", "\u2013": "-", "\u2014": "-"}
)


def read(source: Path) -> list[SourceClip]:
    """An utterance for every row of the three tables that are there.

    Raises FileNotFoundError where there is none, ValueError for one that is not of the release.
    """
    tables = {split: find_table(source, *_places(split)) for split in _FOLDERS}
    if not any(tables.values()):
        raise FileNotFoundError(
            f"--source {source} has none of train_sent_emo.csv, dev_sent_emo.csv, test_sent_emo.csv; give the folder "
            "MELD.Raw, unpacked"
        )
    files = defaultdict(list)
    for path in media_files(source):
        files[path.parent.name, path.stem].append(path)
    return [
        _clip(source, split, row, files)
        for split, table in tables.items()
        if table
        for row in read_table(table, _COLUMNS)
    ]


def _places(split: str) -> tuple[str, ...]:
    name = f"{split}_sent_emo.csv"
    return name, f"{split}/{name}", f"data/MELD/{name}"


def _clip(source: Path, split: str, row: Row, files: dict[tuple[str, str], list[Path]]) -> SourceClip:
    turn = row.whole("Utterance_ID")
    dialogue, utterance = f"{split}/dia{row.whole('Dialogue_ID')}", f"utt{turn}"
    name = f"dia{row.whole('Dialogue_ID')}_{utterance}"
    found = (best_file(files[folder, name]) for folder in _FOLDERS[split] if (folder, name) in files)
    path = next(found, source / _FOLDERS[split][0] / f"{name}.mp4")
    clip_id, seconds = f"{dialogue}_{utterance}", _seconds(row, "EndTime") - _seconds(row, "StartTime")
    if clip_id in _BROKEN:
        refused = "known to be broken or missing in every copy"
    elif seconds > _LONGEST_SEC and not why_missing(path):
        refused = f"is {seconds:.0f} s long by its times, which is more than an utterance"
    else:
        refused = ""
    return SourceClip(
        clip_id,
        path=path,
        split=standard_split(split),
        speaker=f"meld-{readable(row['Speaker'])}" if row["Speaker"] else "",
        labels={
            "emotion": standard_emotion(row["Emotion"]) or "",
            "sentiment": row.one_of("Sentiment", _SENTIMENTS),
            "text": _plain(row["Utterance"]),
            "dialogue": dialogue,
            "turn": float(turn),
        },
        info={
            "emotion": row["Emotion"],
            "season": row.whole("Season"),
            "episode": row.whole("Episode"),
            "episode_start": row["StartTime"],
            "episode_end": row["EndTime"],
        },
        refused=refused,
        broken=clip_id in _BROKEN,
        note="" if seconds > 0 else "its times in the episode are not in order",
        official=Official(split, clip_id),
    )


def _seconds(row: Row, column: str) -> float:
    """Of a time such as 00:16:16,059."""
    match = re.fullmatch(r"(\d+):(\d+):(\d+)[,.](\d+)", row[column])
    if match is None:
        row.refuse(column, "a time such as 00:16:16,059")
    hours, minutes, seconds = (int(part) for part in match.groups()[:3])
    return 3600 * hours + 60 * minutes + seconds + float(f"0.{match[4]}")


def _plain(text: str) -> str:
    """With plain quotation marks; what Windows wrote where Unicode has control characters is what Windows means."""
    text = "".join(bytes([ord(char)]).decode("cp1252", "ignore") if "\x80" <= char <= "\x9f" else char for char in text)
    return " ".join("".join(char if char.isprintable() else " " for char in text.translate(_PLAIN)).split())


LAYOUT = """\
MELD.Raw with its archives unpacked: train_sent_emo.csv, dev_sent_emo.csv, test_sent_emo.csv, and
train_splits/dia0_utt0.mp4, dev_splits_complete/..., output_repeated_splits_test/... (folders at any depth). Splits are
the official ones; six people are in all of them, so that speakers are not held out (protocol `meld-official`).
Broken and overlong clips are left out and named; sound of 5.1 channels is mixed down. Of several faces the one is taken
whose mouth moves with the sound; shots without it are cut away."""

CORPUS = Corpus(
    name="meld",
    layout=LAYOUT,
    terms="GPL-3.0 is stated; the pictures are of television",
    arguments=(SOURCE,),
    read=read,
    labels=columns("emotion", "sentiment", "text", "dialogue", "turn"),
    official={"train": 9_989, "dev": 1_109, "test": 2_610},
)
