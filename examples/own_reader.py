"""A corpus of one's own layout, say `anna/glad_03.wav`: python own_reader.py --source DIR --output prepared/mine.

All else is as of every corpus: decoding, faces, crops, report, going on after a stop, `--check`; see `--help`.
"""

import sys

from data_prep.__main__ import run
from data_prep.corpus import SOURCE, Corpus
from data_prep.labels import columns
from data_prep.sources import SourceClip, hashed_split, media_files

EMOTIONS = {"glad": "happy", "low": "sad", "plain": "neutral"}


def read(source):
    for path in media_files(source):
        speaker, word = path.parent.name, path.stem.split("_")[0]
        yield SourceClip(
            clip_id=f"{speaker}/{path.stem}",
            path=path,
            speaker=speaker,
            split=hashed_split(speaker, validation_share=0.1),  # a speaker is in one split
            labels={"emotion": EMOTIONS.get(word, "")},
            refused="" if word in EMOTIONS else f"{word} is no emotion of this corpus",
        )


CORPUS = Corpus(
    name="mine",
    layout="SPEAKER/EMOTION_NUMBER.wav",
    arguments=(SOURCE,),
    read=lambda source: list(read(source)),
    labels=columns("emotion"),
)

if __name__ == "__main__":
    sys.exit(run(CORPUS, sys.argv[1:]))
