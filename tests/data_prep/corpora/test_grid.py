"""GRID: what names spell, and the times of words from both kinds of files."""

from collections import Counter

import numpy as np
import pytest

from data_prep.corpora import grid
from data_prep.timed import tracks_of
from tests.data_prep.corpora.trees import check, clips_of, touch, write

ALIGN = """0 23750 sil
23750 29500 bin
29500 34000 blue
34000 35500 at
35500 41000 f
41000 47250 two
47250 53000 now
"""


def test_names_spell_the_sentence():
    assert grid.spelling("bbaf2n") == "bin blue at f two now"
    assert grid.spelling("pwijzp") == "place white in j zero please"
    assert [grid.spelling(name) for name in ("bbaw2n", "bbaf2", "bbaf2nn", "xbaf2n")] == [""] * 4


def test_speakers_times_and_damaged_clips_are_found_in_the_layouts_that_go_round(tmp_path):
    touch(tmp_path / "s1" / "bbaf2n.mpg", tmp_path / "s1" / "pbio7a.mpg", tmp_path / "s1" / "readme.mpg")
    touch(tmp_path / "s33" / "video" / "mpg_6000" / "bbaf2n.mpg", tmp_path / "audio" / "s33" / "bbaf2n.wav")
    write(tmp_path / "s1" / "align" / "bbaf2n.align", ALIGN)
    write(tmp_path / "align" / "s33" / "bbaf2n.align", ALIGN.replace("two", "three"))
    clips = clips_of("grid", tmp_path, validation_share=0.0)
    assert sorted(clips) == ["s1/bbaf2n", "s1/pbio7a", "s1/readme", "s33/bbaf2n"]
    clip = clips["s1/bbaf2n"]
    assert (clip.speaker, clip.labels["text"], clip.official) == (
        "grid-s1", "bin blue at f two now", ("sentences", "s1/bbaf2n"),
    )  # fmt: skip
    assert clip.words[0] == ("bin", 0.95, 1.18)
    assert [word.text for word in clip.words] == clip.labels["text"].split()
    assert clips["s1/pbio7a"].refused == "known to be damaged in every copy"
    assert "not a name of GRID" in clips["s1/readme"].refused
    assert clips["s33/bbaf2n"].path.suffix == ".mpg"
    assert not clips["s33/bbaf2n"].words  # they are of another sentence
    assert "are not those that the name spells" in clips["s33/bbaf2n"].note


def test_an_alignment_that_cannot_be_read_is_named_with_its_line(tmp_path):
    touch(tmp_path / "s1" / "bbaf2n.mpg")
    write(tmp_path / "s1" / "align" / "bbaf2n.align", ALIGN + "what\n")
    with pytest.raises(ValueError, match=r"bbaf2n\.align, line 8: 'what' is not `start end word`"):
        clips_of("grid", tmp_path, validation_share=0.0)


def test_times_are_found_where_recordings_are(tmp_path):
    there, source = tmp_path / "disk" / "grid1", tmp_path / "source"
    touch(there / "bbaf2n.mpg", there / "pwijzp.mpg")
    write(there / "align" / "bbaf2n.ALIGN", ALIGN)
    write(there / "alignments.csv", "clip,start_s,end_s,word\n")
    (there / "align" / "._bbaf2n.ALIGN").write_bytes(b"\x00\x05\x16\x07")  # what macOS leaves beside a copy
    source.mkdir()
    (source / "s1").symlink_to(there)
    clips = clips_of("grid", source, validation_share=0.0)
    assert {clip_id: len(clip.words) for clip_id, clip in clips.items()} == {"s1/bbaf2n": 6, "s1/pwijzp": 0}


def test_the_real_sentences_have_times_that_fit_their_names(real_data, capsys):
    clips = clips_of("grid", real_data / "av" / "grid" / "s1", validation_share=0.1)
    assert len(clips) == 240
    kept = [clip for clip in clips.values() if not clip.refused]
    assert len(kept) == 237
    assert not any(clip.note for clip in kept)
    assert all(len(clip.words) == 6 for clip in kept)
    assert {clip.speaker for clip in kept} == {"grid-s1"}
    track = tracks_of(clips["s1/bbaf5a"].words, {}, 0.0, 75)["words"]
    # bin from 0.70 s: the first frame whose middle is in it is the 18th (0.72 to 0.76 s has 0.74 in its middle).
    assert np.flatnonzero(track >= 0)[0] == 17
    assert list(Counter(track[track >= 0].tolist())) == [0, 1, 2, 3, 4, 5]
    code, said = check(capsys, "grid", real_data / "av" / "grid" / "s1")
    assert code == 1
    assert "240 of 33,000 recordings" in said
