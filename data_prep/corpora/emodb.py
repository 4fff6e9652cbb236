"""EMO-DB: ten German actors say ten sentences in seven emotions. All labels are in the names; all clips are `train`."""

from __future__ import annotations

import re
from pathlib import Path

from data_prep.corpus import SOURCE, Corpus
from data_prep.labels import columns
from data_prep.sources import Official, SourceClip, media_files
from mmpretrain.listing import readable

_NAME = re.compile(r"(\d\d)([ab]\d\d)([WLEAFTN])([a-f])?")
_EMOTIONS = {  # by the first letter of the German word
    "W": ("angry", "Wut"),
    "L": ("boredom", "Langeweile"),
    "E": ("disgust", "Ekel"),
    "A": ("fearful", "Angst"),
    "F": ("happy", "Freude"),
    "T": ("sad", "Trauer"),
    "N": ("neutral", "neutral"),
}
_SEXES = {"03": "male", "08": "female", "09": "female", "10": "male", "11": "male", "12": "male", "13": "female",
          "14": "female", "15": "male", "16": "female"}  # fmt: skip
_AGES = {"03": 31, "08": 34, "09": 21, "10": 32, "11": 26, "12": 30, "13": 32, "14": 35, "15": 25, "16": 31}
_TEXTS = {
    "a01": "der lappen liegt auf dem eisschrank",
    "a02": "das will sie am mittwoch abgeben",
    "a04": "heute abend k\u00f6nnte ich es ihm sagen",
    "a05": "das schwarze st\u00fcck papier befindet sich da oben neben dem holzst\u00fcck",
    "a07": "in sieben stunden wird es soweit sein",
    "b01": "was sind denn das f\u00fcr t\u00fcten die da unter dem tisch stehen",
    "b02": "sie haben es gerade hochgetragen und jetzt gehen sie wieder runter",
    "b03": "an den wochenenden bin ich jetzt immer nach hause gefahren und habe agnes besucht",
    "b09": "ich will das eben wegbringen und dann mit karl was trinken gehen",
    "b10": "die wird auf dem platz sein wo wir sie immer hinlegen",
}


def read(source: Path) -> list[SourceClip]:
    """Every recording below `source`, at any depth."""
    return [_clip(path) for path in media_files(source)]


def _clip(path: Path) -> SourceClip:
    match = _NAME.fullmatch(path.stem)
    if match is None or match[1] not in _SEXES or match[2] not in _TEXTS:
        refused = "not a name of EMO-DB (03a01Fa: speaker, sentence, emotion, version)"
        return SourceClip(readable(path.stem), path, refused=refused)
    speaker, sentence, letter, version = match.groups()
    emotion, word = _EMOTIONS[letter]
    return SourceClip(
        path.stem,
        path,
        speaker=f"emodb-{speaker}",
        labels={
            "emotion": emotion, "text": _TEXTS[sentence], "language": "de",
            "sex": _SEXES[speaker], "age": float(_AGES[speaker]),
        },
        info={"emotion": word, "sentence": sentence, "version": version or ""},
        official=Official("recordings", path.stem),
    )  # fmt: skip


LAYOUT = """\
EMO-DB: wav/03a01Fa.wav (speaker, sentence, first letter of the German word for the emotion, version), at any depth."""

CORPUS = Corpus(
    name="emodb",
    layout=LAYOUT,
    terms="free for research",
    arguments=(SOURCE,),
    read=read,
    labels=columns("emotion", "text", "language", "sex", "age"),
    official={"recordings": 535},
)
