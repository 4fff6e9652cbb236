"""Manifests: what is in a row is taken as it is meant, or refused with the line, the reason and the remedy."""

import codecs
import csv
import os
import random
from pathlib import Path

import pytest

from data_prep.column_map import mapped_column
from data_prep.corpora import folder
from data_prep.manifest import read_manifest
from data_prep.sources import with_text_alone
from mmpretrain.index import read_index
from tests.data_prep.authored import tone, write_wav
from tests.data_prep.test_preparation import prepare_folder, report_of

CASES = Path(os.environ.get("MMPRETRAIN_SHARED_DIR", Path(__file__).parents[2].parent / "shared")) / "data" / "cases"


def clips_of(tmp_path, text: str | bytes, *, encoding="", share=0.0, column=()):
    """The clips that a manifest of this text makes of the empty files a.wav to e.wav."""
    for name in ("a.wav", "b.wav", "c.wav", "d.wav", "e.wav"):
        (tmp_path / name).write_bytes(b"x")
    manifest = tmp_path / "m.csv"
    manifest.write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder.read(tmp_path, manifest, validation_share=share, split_by="clip", encoding=encoding, column=column)


@pytest.fixture
def cases():
    if not CASES.is_dir():
        pytest.skip(f"no cases under {CASES}; set MMPRETRAIN_SHARED_DIR")
    return CASES / "csvs"


def prepare_case(cases, tmp_path, capsys, name, *more) -> tuple[int, str]:
    code = prepare_folder(cases / "clips", tmp_path / name, "--manifest", cases / name, *more)
    out, err = capsys.readouterr()
    return code, out + err


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("splits.csv", ["'testing' (line 3)", "'evaluation' (line 4)", "'test_clean' (line 5)",
                        "'test-unseen' (line 6)",
                        "'held-out' (line 7)", "test: test, tst, eval"]),
        ("quote.csv", ["quote.csv, line 2 to 5: a quotation mark is not closed"]),
        ("bigfield.csv", ["bigfield.csv, line 2: a cell is longer than 131,072 characters"]),
        ("dups.csv", ["a.wav is in train by line 2 and in test by line 3", "remove one"]),
        ("cp1252.csv", ["cp1252.csv, line 2: the byte 0x92 is not utf-8",
                        "save the file as UTF-8", "--encoding cp1252"]),
    ],
)  # fmt: skip
def test_cases_that_are_refused(cases, tmp_path, capsys, name, said):
    code, printed = prepare_case(cases, tmp_path, capsys, name)
    assert code == 2
    assert all(part in printed for part in said), printed
    assert not (tmp_path / name / "report.csv").exists()


def test_cases_that_are_read(cases, tmp_path, capsys):
    code, printed = prepare_case(cases, tmp_path, capsys, "space_header.csv")
    assert code == 0, printed
    rows = report_of(tmp_path / "space_header.csv")
    assert {name: (row["speaker"], row["emotion"], row["split"]) for name, row in rows.items()} == {
        "a": ("anna", "happy", "train"), "b": ("anna", "sad", "validation"), "c": ("ben", "angry", "test"),
    }  # fmt: skip
    assert list(read_index(tmp_path / "space_header.csv", "test").clip_ids) == ["c"]
    assert prepare_case(cases, tmp_path, capsys, "cp1252.csv", "--encoding", "cp1252")[0] == 0
    rows = folder.read(cases / "clips", cases / "cp1252.csv", validation_share=0.0, split_by="clip", encoding="cp1252")
    assert rows[0].labels == {"text": "I\u2019m fine\u2026", "emotion": "happy"}


def test_times_are_numbers_or_the_row_is_refused(cases):
    clips = folder.read(cases / "clips", cases / "times.csv", validation_share=0.0, split_by="clip")
    reasons = [clip.refused for clip in clips]
    assert [(clip.start_sec, clip.end_sec) for clip in clips if not clip.refused] == [
        (0.2, 0.8), (5.0, 6.0), (0.5, 99.0), (0.1, 0.9), (0.1, 0.9),
    ]  # fmt: skip
    assert reasons[3].startswith("start_sec nan is no time in a file")
    assert reasons[4].startswith("start_sec 00:00:00.2 is not a number; write seconds")
    assert reasons[5] == "start_sec 0,2 is not a number; write 0.2"
    assert reasons[6] == "start_sec -0.5 to end_sec 0.5 is not a part of a file"
    assert reasons[7].startswith("start_sec inf is no time")
    assert reasons[8] == "start_sec 0.2 to end_sec 0.2 is not a part of a file"


def test_times_in_nanoseconds_are_refused(cases):
    source = cases.parent / "bigtime"
    clips = folder.read(source, source / "ns.csv", validation_share=0.0, split_by="clip")
    assert [clip.refused.partition(" is no time")[0] for clip in clips] == [
        "start_sec 1600000000000000000", "", "start_sec 1600000000000000000", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "header",
    [" Path ,EMOTION,split\t", "path,emotion , Split", "\ufeffpath,\xa0emotion,SPLIT", "PATH,Emotion,sPLIT"],
)
def test_columns_are_known_in_any_letters_and_with_blanks(tmp_path, header):
    (clip,) = clips_of(tmp_path, f"\n{header}\n a.wav , Happy , Test \n")
    assert (clip.path.name, clip.labels["emotion"], clip.split, clip.info) == ("a.wav", "happy", "test", {})


@pytest.mark.parametrize("column", ["Start Sec", "start-sec", "START_SEC"])
def test_blanks_within_a_columns_name_do_not_matter(tmp_path, column):
    assert clips_of(tmp_path, f"path,{column}\na.wav,0.5\n")[0].start_sec == 0.5


@pytest.mark.parametrize(
    ("header", "asked"),
    [
        ("path,emotions", "`emotion`"), ("path,emtion", "`emotion`"), ("path,speaker_id", "`speaker`"),
        ("path,splits", "`split`"), ("path,partition", "`split`"), ("path,start,end", "`start_sec`"),
        ("path,end_time", "`end_sec`"), ("path,clipid", "`clip_id`"), ("path,transcript", "`text`"),
        ("filename,emotion", "`filename`"), ("paths,emotion", "`paths`"), ("File,emotion", "`file`"),
    ],
)  # fmt: skip
def test_near_names_are_asked_about(tmp_path, header, asked):
    with pytest.raises(ValueError, match="did you mean") as refusal:
        clips_of(tmp_path, f"{header}\na.wav,x,y\n")
    assert asked in str(refusal.value)


def test_other_columns_are_information(tmp_path):
    (clip,) = clips_of(tmp_path, "path,emotion,Emotion_2,Mood,fold,speaker_id,speaker\na.wav,sad,happy,grim,3,7,anna\n")
    assert clip.info == {"Emotion_2": "happy", "Mood": "grim", "fold": "3", "speaker_id": "7"}
    assert clip.speaker == "anna"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,emotion,Emotion \na.wav,sad,happy\n", "has two columns `emotion`"),
        ("path,mood,Mood\na.wav,sad,happy\n", "has two columns `mood`"),
        ("path,text\na.wav,well, he said\n", r"m\.csv, line 2 has 3 cells, .*the first line names 2"),
        ("path,,text\na.wav,x,y\n", r"line 2 has 3 cells, of which not all stand under a name"),
        ('path,text\na.wav,"well\nb.wav,bye\n', r"line 2 to 3: a quotation mark is not closed"),
        # Closed again, by chance, in the next row: the quotation marks match.
        ('path,text,emotion\nc.wav,ok,sad\na.wav,"well,happy\nb.wav,bye",sad\n',
         r"line 3 to 4: one cell holds 'b\.wav,bye', which looks like a row"),
        ('path,text\na.wav,"x" y\n', r"line 2: a quotation mark is not closed, or followed by more"),
        ("path,text\na.wav,x\0y\n", r"line 2: a character is NUL"),
        ("path,text\na.wav,x\n".encode("utf-16-le"), r"line 1: a character is NUL; .* --encoding utf-16-le"),
        (b"path,text\r\na.wav,x\r\nb.wav,na\xefve\r\n", r"m\.csv, line 3: the byte 0xef is not utf-8; save"),
        (codecs.BOM_UTF16_LE + "path\na.wav\n".encode("utf-16-le")[:-1],
         r"line 2: the byte 0x0a is not utf-16-le; save the file as UTF-8$"),
        (b"PK\3\4\x14\0", "is a spreadsheet"),
        ("path,split\na.wav,train\nb.wav,Testing\nc.wav,testing\nd.wav,devtest\n",
         r"'Testing' \(line 3\), 'testing' \(line 4\), 'devtest' \(line 5\); write one"),
    ],
)  # fmt: skip
def test_what_can_be_read_in_two_ways_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        clips_of(tmp_path, text)


@pytest.mark.parametrize("encoding", ["rot13", "no-such", "hex"])
def test_an_encoding_must_be_one(tmp_path, encoding):
    with pytest.raises(ValueError, match=f"--encoding {encoding} is no encoding"):
        clips_of(tmp_path, "path\na.wav\n", encoding=encoding)
    with pytest.raises(ValueError, match="--encoding utf-8 is of a manifest"):
        folder.read(tmp_path, None, validation_share=0.0, split_by="clip", encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("path,text\na.wav,na\xefve\n".encode("utf-16"), ""),
        (codecs.BOM_UTF16_BE + "path,text\na.wav,na\xefve\n".encode("utf-16-be"), "cp1252"),  # the mark counts
        (codecs.BOM_UTF8 + "path,text\na.wav,na\xefve\n".encode(), ""),
        ("path,text\na.wav,na\xefve\n".encode("utf-32"), ""),
        ("path,text\na.wav,na\xefve\n".encode("cp1252"), "cp1252"),
        ("path;text\ra.wav;na\xefve\r".encode(), ""),
        ("sep=;\r\npath;text\r\na.wav;na\xefve\r\n".encode(), ""),
        ("path\ttext\na.wav\tna\xefve\n".encode(), ""),
        ('"path";"text"\n"a.wav";"na\xefve"\n'.encode(), ""),
        ('path, text\na.wav, "na\xefve"\n'.encode(), ""),
        ("path,text,,\na.wav,na\xefve,,\n,,,\n\n".encode(), ""),
    ],
)  # fmt: skip
def test_encodings_delimiters_and_line_ends(tmp_path, content, encoding):
    (clip,) = clips_of(tmp_path, content, encoding=encoding)
    assert (clip.path.name, clip.labels["text"], clip.info, clip.note) == ("a.wav", "na\xefve", {}, "")


def test_a_cell_may_have_lines_commas_and_quotation_marks(tmp_path):
    first, second = clips_of(tmp_path, 'path,text\na.wav,"one,\ntwo ""three"""\nb.wav,4 "5"\n')
    assert (first.labels["text"], second.labels["text"]) == ('one,\ntwo "three"', '4 "5"')
    (tmp_path / "m.csv").write_text('path,text\na.wav,"one\ntwo"\nb.wav,"three\n')
    with pytest.raises(ValueError, match="line 4: a quotation mark is not closed"):
        read_manifest(tmp_path / "m.csv")


def test_rows_that_lack_something_are_accounted_for(tmp_path):
    clips = clips_of(tmp_path, "path,clip_id,emotion,speaker\n,one,sad,anna\na.wav,two\n , ,\n,,happy,\n")
    assert [(clip.clip_id, clip.refused) for clip in clips] == [
        ("one", "line 2 names no path"), ("two", ""), ("line 5", "line 5 names no path"),
    ]  # fmt: skip
    assert clips[1].note == "line 3 has 2 of 4 cells"
    # What stands in a row that lacks a comma may be its split.
    clips = clips_of(
        tmp_path, "path,speaker,emotion,split\na.wav,anna,happy,train\nb.wav,ben sad,test\nc.wav,ben,sad,\n"
    )
    assert [clip.refused for clip in clips] == ["", "line 3 has 3 of 4 cells, so that its split is not known", ""]


def test_no_text_alone_of_a_row_that_is_refused_for_more_than_its_file(tmp_path):
    clips = clips_of(
        tmp_path,
        "path,text,valenssi,split,start_sec,end_sec\nx.wav,hi,3,train,,\nx.wav,hi,99,train,,\nx.wav,hi,3,train,5,2\n"
        "x.wav,hi,3\n",
        column=(mapped_column("valenssi=valence:1..9"),),
    )
    assert [with_text_alone(clip).refused for clip in clips] == [
        "",
        "valenssi 99 is not on the scale from 1 to 9",
        "start_sec 5.0 to end_sec 2.0 is not a part of a file",
        "line 5 has 3 of 6 cells, so that its split is not known",
    ]


def test_paths_are_found_as_they_are_meant(tmp_path):
    composed, taken_apart = "caf\xe9.wav", "cafe\N{COMBINING ACUTE ACCENT}.wav"
    stray = os.fsdecode(b"x\xff.wav")
    for name in ("deep/a.wav", taken_apart, stray, "behind.wav "):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    manifest = tmp_path / "m.csv"
    named = [r"deep\a.wav", "./deep/a.wav", str(tmp_path / "deep" / "a.wav"), composed, "x%FF.wav", "behind.wav ",
             r"C:\data\a.wav", "deep", "y" * 300 + ".wav", "../gone.wav"]  # fmt: skip
    with open(manifest, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["path"], *([name] for name in named)])
    clips = folder.read(tmp_path, manifest, validation_share=0.0, split_by="clip")
    assert [clip.path.relative_to(tmp_path).as_posix() for clip in clips[:6]] == [
        "deep/a.wav", "deep/a.wav", "deep/a.wav", taken_apart, stray, "behind.wav ",
    ]  # fmt: skip
    assert [clip.clip_id for clip in clips[:2]] == ["deep/a", "deep/a-2"]
    assert [clip.refused for clip in clips] == [
        *[""] * 6, "the file does not exist", "is no file", "the file cannot be reached: File name too long",
        "the file does not exist",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "lines"),
    [
        ("a.wav,train,,\na.wav,test,,\n", (2, 3)),
        ("a.wav,train,0,2\nb.wav,test,,\na.wav,dev,1.5,3\n", (2, 4)),
        ("a.wav,test,0,2\na.wav,,1,4\na.wav,train,3,5\n", (2, 4)),  # the row between is of both
        ("a.wav,train,,\n./a.wav,test,,\n", (2, 3)),
        ("a.wav,train,,\nlinked.wav,test,,\n", (2, 3)),
        ("a.wav,train,,\nhard.wav,valid,7,8\n", (2, 3)),
    ],
)  # fmt: skip
def test_a_part_of_a_file_is_in_one_split(tmp_path, rows, lines):
    (tmp_path / "a.wav").write_bytes(b"x")
    (tmp_path / "linked.wav").symlink_to(tmp_path / "a.wav")
    os.link(tmp_path / "a.wav", tmp_path / "hard.wav")
    with pytest.raises(ValueError, match=f"by line {lines[0]} and in .* by line {lines[1]}; what is tested"):
        clips_of(tmp_path, "path,split,start_sec,end_sec\n" + rows)


def test_parts_that_only_touch_may_be_in_two_splits_and_rows_without_one_follow(tmp_path):
    rows = "a.wav,x1,train,0,2\na.wav,x2,test,1.99,4\na.wav,x3,,3,5\nb.wav,x4,dev,0,\na.wav,x5,,0.5,1\n"
    clips = clips_of(tmp_path, "path,clip_id,split,start_sec,end_sec\n" + rows)
    assert [clip.split for clip in clips] == ["train", "test", "test", "validation", "train"]
    many = "".join(f"a.wav,y{k},{k},{k + 1.5}\n" for k in range(40))  # ids that are drawn apart
    clips = clips_of(tmp_path, "path,clip_id,start_sec,end_sec\n" + many, share=0.5)
    assert len({clip.split for clip in clips}) == 1


def test_emotion_words_that_nobody_knows_are_counted(tmp_path, capsys):
    source = tmp_path / "source"
    rows = []
    for number, word in enumerate(["wistful", "Happy", "wistful", "grim"]):
        write_wav(source / f"{number}.wav", tone(0.4, hz=200 + 50 * number))
        rows.append(f"{number}.wav,{word}\n")
    (tmp_path / "m.csv").write_text("path,emotion\n" + "".join(rows))
    assert prepare_folder(source, tmp_path / "out", "--manifest", tmp_path / "m.csv") == 0
    said = "no emotion label for 3 clips, whose word for it is none of ours: wistful 2, grim 1"
    assert said in capsys.readouterr().out
    rows = report_of(tmp_path / "out").values()
    assert [row["unknown_emotion"] for row in rows] == ["wistful", "", "wistful", "grim"]


def test_a_manifest_of_any_bytes_is_read_or_refused_with_its_name(tmp_path):
    """400 damaged ones; of 20,000 by hand none ended otherwise."""
    for name in ("a.wav", "b.wav", "c.mp4"):
        (tmp_path / name).write_bytes(b"x")
    whole = (
        'path,speaker,emotion,split,start_sec,end_sec,text\na.wav,anna,happy,train,0,1,"hi, ""you"""\n'
        'b.wav,ben,sad,test,,,ok\nc.mp4,,,,1,2,"two\nlines"\n'
    )
    pieces = ['"', ",", "\n", "\r", ";", "\t", "\0", "path", "split", "\ufeff", "a.wav", "1e400", "0,5", "sep=;\n", "/",
              "x" * 300, "\u2028", "\N{GRINNING FACE}"]  # fmt: skip
    manifest, draw, read, refusals = tmp_path / "m.csv", random.Random(0), 0, set()
    for _ in range(400):
        text = whole
        for _ in range(draw.randint(1, 4)):
            at, cut = draw.randint(0, len(text)), draw.choice((0, 0, 1, 9))
            text = text[:at] + draw.choice(pieces) + text[at + cut :]
        content = bytearray(text.encode(draw.choice(("utf-8", "utf-8", "utf-16", "cp1252")), "replace"))
        if draw.random() < 0.3:
            content[draw.randrange(len(content))] = draw.randrange(256)
        manifest.write_bytes(content)
        try:
            clips = folder.read(tmp_path, manifest, validation_share=0.1, split_by="clip")
        except ValueError as error:
            refusals.add(str(error).partition("m.csv")[0])
        else:
            read += 1
            assert all(clip.split in ("train", "validation", "test") and clip.clip_id.encode() for clip in clips)
            assert len({clip.clip_id for clip in clips}) == len(clips)
    assert 20 < read < 380
    assert refusals == {f"--manifest {tmp_path}/"}


def test_one_person_under_two_spellings_is_joined_or_said(tmp_path, capsys):
    composed, taken_apart = "Zo\xeb", "Zoe\N{COMBINING DIAERESIS}"
    rows = f"a.wav,{composed}\nb.wav,{taken_apart}\nc.wav,Ben  Oak\nd.wav,ben oak\ne.wav,N/A\n"
    clips = clips_of(tmp_path, "path,speaker\n" + rows)
    assert [clip.speaker for clip in clips] == [composed, composed, "Ben  Oak", "ben oak", ""]
    assert [clip.note.partition("; ")[0] for clip in clips] == [
        "", "", "speaker 'Ben  Oak' is written 'ben oak' too, and taken for another person",
        "speaker 'ben oak' is written 'Ben  Oak' too, and taken for another person",
        "speaker N/A is no name, and taken for none",
    ]  # fmt: skip
    said = "speakers whose names differ only in case, blanks or Unicode form: 'Ben  Oak' = 'ben oak'; they are taken"
    assert said in capsys.readouterr().out
    assert [clip.speaker for clip in clips_of(tmp_path, "path,speaker\na.wav,NaN\n")] == [""]
