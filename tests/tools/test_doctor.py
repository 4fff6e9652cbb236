"""`mmpretrain doctor`: clips that are there twice are found, with splits and labels, in a corpus and across two."""

import dataclasses

import numpy as np
import pytest

from mmpretrain.__main__ import main
from mmpretrain.doubles import find_doubles, pairs
from mmpretrain.index import Index
from mmpretrain.records import IndexRow
from tests.corpus_fixture import make_clip, write_corpus

SIZE = 8


def sound(clip_id, seed, split="train", speaker="", emotion="happy"):
    clip = make_clip(clip_id, 10, video=False, size=SIZE, split=split, speaker=speaker, labels={"emotion": emotion})
    return dataclasses.replace(clip, audio=np.random.default_rng(seed).integers(-9, 9, 6400).astype(np.int16))


@pytest.fixture
def corpus(tmp_path):
    clips = [
        sound("a", 1, speaker="anna"), sound("b", 2, speaker="ben"), sound("c", 1, "test", "anna", "sad"),
        sound("d", 3, "validation", "ben"), sound("e", 2, speaker="ben"),
    ]  # fmt: skip
    return write_corpus(tmp_path / "one", clips, SIZE, SIZE + 16)


def test_it_shows_what_is_there_twice(corpus, capsys):
    main(["doctor", str(corpus)])
    printed = " ".join(capsys.readouterr().out.split())
    assert "4 clips have the content of another clip" in printed
    told = "a (train, anna, happy) = c (test, anna, sad)"
    assert (
        "of one content, but in several splits (1), so that what is tested or validated on is trained on as well: "
        f"{told}" in printed
    )
    assert f"of one content, but with several labels or speakers (1): {told} 2 speakers" in printed
    assert "2 speakers are in several splits: anna (train, test), ben (train, validation)" in printed
    assert "train 3 1.2 s 2 3 0" in printed
    assert "happy 3 1 0 sad 0 0 1" in printed


def test_it_finds_a_clip_of_one_corpus_again_in_another(corpus, tmp_path, capsys):
    other = write_corpus(tmp_path / "two", [sound("x", 3, speaker="dora"), sound("y", 9)], SIZE, SIZE + 16)
    main(["doctor", str(other)])
    assert "no clip has the content of another" in capsys.readouterr().out
    main(["doctor", str(corpus), f"--corpus={other}"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "6 clips have the content of another clip" in printed
    assert "two/x (train, dora, happy)" in printed
    with pytest.raises(SystemExit):
        main(["doctor", str(tmp_path / "nowhere")])
    assert "does not exist" in capsys.readouterr().err


def test_doubles_and_pairs_are_all_there_are():
    random = np.random.default_rng(0)
    hashes = random.integers(2**63, 2**64, 40, np.uint64)[random.integers(0, 40, 200)]
    rows = [IndexRow(f"c{i}", 9, (), "train", "", {}, int(value), 0) for i, value in enumerate(hashes)]
    index = Index.of(rows, {})
    groups = [group.tolist() for group in find_doubles(index)]
    of_content: dict[int, list[int]] = {}
    for i, value in enumerate(hashes.tolist()):
        of_content.setdefault(value, []).append(i)
    assert groups == [rows for rows in of_content.values() if len(rows) > 1]
    ones, others = np.arange(0, 90), np.arange(90, 200)
    found = pairs(index, ones, others)
    assert [one for one, _ in found] == [i for i in ones if hashes[i] in hashes[others]]
    assert all(hashes[one] == hashes[other] and other in others for one, other in found)
    assert pairs(index, ones, others[:0]) == []
    assert find_doubles(Index.of([], {})) == []
