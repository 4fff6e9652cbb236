"""EMO-DB: German names, seven emotions, and 535 of them in a tree as released."""

from collections import Counter

from data_prep.corpora import emodb
from tests.data_prep.corpora.trees import check, clips_of, touch

COUNTS = {"W": 127, "L": 81, "E": 46, "A": 69, "F": 71, "T": 62, "N": 79}


def test_names_carry_the_labels(tmp_path):
    touch(*(tmp_path / "wav" / f"{name}.wav" for name in ("03a01Fa", "16b10Td", "08a05Nb", "03a03Fa", "99a01Wa")))
    touch(tmp_path / "copy" / "wav" / "03a01Fa.wav")
    clips = clips_of("emodb", tmp_path)
    assert "has the name of" in clips.pop("03a01Fa-2").refused
    assert {clip_id for clip_id, clip in clips.items() if clip.refused} == {"03a03Fa", "99a01Wa"}
    clip = clips["03a01Fa"]
    assert (clip.speaker, clip.split) == ("emodb-03", "train")
    assert clip.labels == {
        "emotion": "happy", "text": "der lappen liegt auf dem eisschrank", "language": "de", "sex": "male", "age": 31.0,
    }  # fmt: skip
    assert clip.info == {"emotion": "Freude", "sentence": "a01", "version": "a"}
    assert clips["16b10Td"].labels["emotion"] == "sad"
    assert clips["08a05Nb"].labels["sex"] == "female"


def test_a_whole_tree_is_whole_and_a_part_of_it_is_not(tmp_path, capsys):
    speakers, texts = list(emodb._SEXES), list(emodb._TEXTS)
    names = [
        f"{speakers[n % 10]}{texts[n // 10 % 10]}{letter}{'abcdef'[n // 100]}"
        for letter, count in COUNTS.items()
        for n in range(count)
    ]
    touch(*(tmp_path / "wav" / f"{name}.wav" for name in names))
    code, said = check(capsys, "emodb", tmp_path)
    assert code == 0
    assert "whole: recordings: 535 of 535 recordings" in said
    assert "535 of 535 clips can be prepared, of 10 speakers" in said
    kept = Counter(clip.labels["emotion"] for clip in clips_of("emodb", tmp_path).values())
    assert kept == {
        "angry": 127, "boredom": 81, "disgust": 46, "fearful": 69, "happy": 71, "sad": 62, "neutral": 79,
    }  # fmt: skip
    (tmp_path / "wav" / f"{names[0]}.wav").unlink()
    assert check(capsys, "emodb", tmp_path)[0] == 1
