"""Words to frames and phones, and the refusal of a file that is no alignment."""

import numpy as np
import pytest

from mmpretrain.text.alignments import (
    PRONUNCIATIONS,
    Span,
    match_clips,
    phones_of,
    read_alignments,
    unit_names,
    units_of_frames,
    words_of_clips,
)


def write(path, *lines):
    path.write_text("\n".join(["clip,start_s,end_s,word", *lines]) + "\n")
    return path


def test_words_become_units_of_frames(tmp_path):
    words = read_alignments(
        write(tmp_path / "a.csv", "c,0.08,0.20,Red", "c,0,0.08,sil", "d,0,0.5,sp", "c,0.20,0.22,at")
    )
    assert words["c"] == [Span(0, 0.08, "sil"), Span(0.08, 0.2, "red"), Span(0.2, 0.22, "at")]
    assert words["d"] == [Span(0, 0.5, "sil")], "both pauses are silence"
    names = unit_names(words)
    assert names == ["at", "red", "sil"]
    # The middles of frames are 0.02, 0.06, 0.10, 0.14, 0.18, 0.22: the last word ends just there.
    assert units_of_frames(words["c"], names, 7, 25).tolist() == [2, 2, 1, 1, 1, -1, -1]
    assert np.bincount(units_of_frames(words["c"], names, 24, 100)[:22]).tolist() == [2, 12, 8]


def test_a_file_may_be_in_the_encoding_of_any_program(tmp_path):
    text = "clip,start_s,end_s,word\nc,0,0.5,gr\u00fcn\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "cp1252"):
        (tmp_path / "a.csv").write_bytes(text.encode(encoding))
        assert read_alignments(tmp_path / "a.csv") == {"c": [Span(0, 0.5, "gr\u00fcn")]}
    (tmp_path / "a.csv").write_bytes(text.encode("utf-16")[:-1])
    with pytest.raises(ValueError, match=r"a\.csv is not in utf-16-le, as its mark says; correct it"):
        read_alignments(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text(text.replace(",", ";"))
    with pytest.raises(ValueError, match=r"a\.csv has no column clip, .*; it needs .*, divided by commas, not by"):
        read_alignments(tmp_path / "a.csv")


def test_a_quotation_mark_that_is_not_closed_swallows_no_rows(tmp_path):
    with pytest.raises(ValueError, match=r"a\.csv, line 3: .*; is a quotation mark not closed\?"):
        read_alignments(write(tmp_path / "a.csv", "c,0,0.5,red", 'c,0.5,1,"at', "d,0,1,blue"))


def test_times_in_other_units_are_refused_and_blanks_do_not_matter(tmp_path):
    rows = "c , 0, 0.95, sil\n d, 0.95, 1.2, bin\nd, 2.0, 2.5, at\n"
    (tmp_path / "a.csv").write_text("clip, start_s, end_s, word\n" + rows)
    words = words_of_clips(tmp_path / "a.csv", ["s1/c", "s1/d", "e"], [1.0, 2.0, 1.0])
    assert {clip_id: [span.name for span in said] for clip_id, said in words.items()} == {
        "s1/c": ["sil"], "s1/d": ["bin", "at"],
    }  # fmt: skip
    write(tmp_path / "a.csv", "c,0,950,sil", "c,950,1180,bin", "c,1180,1360,blue")
    said = r"a\.csv: 2 words begin behind the end of their clip \('bin' at 950 s of c, which is 3\.0 s .* are seconds"
    with pytest.raises(ValueError, match=said):
        words_of_clips(tmp_path / "a.csv", ["c"], [3.0])


def test_phones_are_spread_evenly_over_their_word():
    phones = phones_of([Span(0.0, 0.3, "red"), Span(0.3, 0.4, "unheard"), Span(0.4, 0.6, "sil")])
    assert [phone.name for phone in phones] == ["R", "EH", "D", "sil"]
    np.testing.assert_allclose([phone.end_sec for phone in phones], [0.1, 0.2, 0.3, 0.6])


def test_the_table_has_the_words_of_grid():
    letters = set("abcdefghijklmnopqrstuvxyz")
    assert len(PRONUNCIATIONS) == 51 + 1
    assert letters < set(PRONUNCIATIONS)


def test_clips_are_found_by_the_end_of_their_id():
    assert match_clips(["x1", "s2/x2"], ["av/s1/x1", "s2/x2", "ax1"]) == {"av/s1/x1": "x1", "s2/x2": "s2/x2"}
    with pytest.raises(ValueError, match="'x1' could be of s1/x1 or s2/x1; write the longer name"):
        match_clips(["x1"], ["s1/x1", "s2/x1"])
    with pytest.raises(ValueError, match=r"none of the 1 clips of the alignments \(x1.* must hold clip ids"):
        match_clips(["x1"], ["s1/x2"])


def test_refusals(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"alignments=.*none.csv.: there is no such file"):
        read_alignments(tmp_path / "none.csv")
    (tmp_path / "b.csv").write_text("clip,word\nc,red\n")
    with pytest.raises(ValueError, match="has no column start_s, end_s; it needs the columns clip,start_s,end_s,word"):
        read_alignments(tmp_path / "b.csv")
    for line in ("c,0.2,0.1,red", "c,zero,1,red", "c,0,1,", "c,0", "c,0,inf,red"):
        with pytest.raises(ValueError, match=r"line 3: c, .* mend or remove the line"):
            read_alignments(write(tmp_path / "c.csv", "c,0,0.2,sil", line))
