"""What corpora declare: each is found by its name and by nothing but one list, and a new one is a file and a word."""

import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from data_prep import corpora
from data_prep.__main__ import main
from data_prep.corpus import SOURCE, Argument, Corpus
from data_prep.sources import SourceClip
from mmpretrain import records
from mmpretrain.index import read_index
from mmpretrain.prepared import check_corpus
from tests.data_prep.authored import tone, write_wav
from tests.data_prep.test_preparation import clips_of

ROOT = Path(__file__).parents[2]


def load(name: str) -> Corpus:
    return importlib.import_module(f"data_prep.corpora.{name}").CORPUS


def test_every_module_is_listed_and_the_reverse():
    assert sorted(corpora.CORPORA) == sorted(module.name for module in pkgutil.iter_modules(corpora.__path__))


@pytest.mark.parametrize("name", corpora.CORPORA)
def test_a_corpus_says_all_of_what_it_takes_and_has(name, capsys):
    corpus = load(name)
    assert corpus.name == name
    assert set(inspect.signature(corpus.read).parameters) == {argument.name for argument in corpus.arguments}
    records.Schema(96, 112, corpus.tracks, corpus.labels)
    with pytest.raises(SystemExit, match=r"^0$"):
        main([name, "--help"])
    text = capsys.readouterr().out
    assert corpus.layout in text
    assert all(f"{argument.flag} " in text for argument in corpus.all_arguments)
    assert all(argument.settings["help"] for argument in corpus.all_arguments)
    assert all(f"{part} {count:,}" in text for part, count in corpus.official.items())
    if name != "folder":  # whose terms only its owner knows
        assert f"Terms: {corpus.terms}." in text
        assert f"| {corpus.terms} |" in (ROOT / "docs" / "corpora.md").read_text() or corpus.drawn


def test_the_help_names_every_corpus_and_loads_none():
    code = "import sys; from data_prep.__main__ import main\ntry: main(['--help'])\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    text, _, modules = done.stdout.rstrip().rpartition("\n")
    assert done.returncode == 0
    assert ", ".join(corpora.CORPORA) in " ".join(text.split())
    assert not {"numpy", "cv2", *(f"data_prep.corpora.{name}" for name in corpora.CORPORA)} & set(modules.split())


def test_an_unknown_corpus_is_refused_with_the_names_of_all(capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["lrs4", "--output", "anywhere"])
    error = capsys.readouterr().err
    assert "lrs4" in error
    assert all(name in error for name in corpora.CORPORA)


@pytest.fixture
def diaries(monkeypatch, tmp_path):
    """A corpus that this program does not have, as a module beside the others and a word in the list of names."""
    valence_of = {"a": 0.25, "b": -0.5}

    def read(source: Path, year: int) -> list[SourceClip]:
        return [
            SourceClip(path.stem, path, labels={"valence": valence_of.get(path.stem, "low"), "year": str(year)})
            for path in sorted(source.glob("*.wav"))
        ]

    year = Argument("year", dict(type=int, default=1999, help="of the diary"), lambda year: year > 0, "is no year")
    module = types.ModuleType("data_prep.corpora.diaries")
    module.CORPUS = Corpus(
        name="diaries", layout="One WAV file a day.", arguments=(SOURCE, year), read=read,
        labels={"valence": "value", "year": "class"}, tracks={}, prepared_name=lambda year, **_: f"diaries-{year}",
        terms="CC0",
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("data_prep.__main__.CORPORA", (*corpora.CORPORA, "diaries"))
    for day in valence_of:
        write_wav(tmp_path / "in" / f"{day}.wav", tone(0.6))
    return ["diaries", "--source", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--workers", "1"]


def test_a_corpus_with_labels_of_its_own_is_one_file_and_one_word(diaries, tmp_path):
    assert main([*diaries, "--year", "2001"]) == 0
    described = json.loads((tmp_path / "out" / records.CORPUS_FILE).read_text())
    assert described["name"] == "diaries-2001"
    assert described["schema"] == {
        "mouth_size": 96, "face_size": 112, "tracks": {}, "labels": {"valence": "value", "year": "class"},
    }  # fmt: skip
    labels = {clip.clip_id: clip.labels for clip in clips_of(tmp_path / "out")}
    assert labels == {"a": {"valence": 0.25, "year": "2001"}, "b": {"valence": -0.5, "year": "2001"}}
    index = read_index(tmp_path / "out", "train")
    assert {row.clip_id: row.labels for row in map(index.row, range(len(index)))} == labels


def test_a_corpus_says_under_which_terms_it_may_be_used_also_one_that_is_there_already(diaries, tmp_path, capsys):
    assert main(diaries) == 0
    assert check_corpus(tmp_path / "out")["terms"] == "CC0"
    assert main([*diaries, "--terms", "by request"]) == 0
    assert "has its terms now: by request" in capsys.readouterr().out
    assert check_corpus(tmp_path / "out", every_shard=True)["terms"] == "by request"


def test_an_argument_is_checked_as_its_corpus_says(diaries, capsys):
    assert main([*diaries, "--year", "-3"]) == 2
    assert capsys.readouterr().err == "data_prep diaries: --year -3 is no year\n"


def test_a_label_that_is_not_what_was_declared_stops_before_anything_is_decoded(diaries, tmp_path, capsys):
    write_wav(tmp_path / "in" / "c.wav", tone(0.6))
    assert main(diaries) == 2
    message = "clip 'c': label 'valence' is 'low', but its column is of kind 'value'; give a number, NaN for none"
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_corpus_that_declares_other_labels_than_before_is_prepared_again_only_when_asked(
    diaries, monkeypatch, capsys
):
    assert main(diaries) == 0
    corpus = load("diaries")
    more = Corpus(**vars(corpus) | {"labels": {**corpus.labels, "weather": "classes"}})
    monkeypatch.setattr(sys.modules["data_prep.corpora.diaries"], "CORPUS", more)
    capsys.readouterr()
    assert main(diaries) == 2
    assert "labels was {'valence': 'value', 'year': 'class'}, now {" in capsys.readouterr().err
    assert main([*diaries, "--overwrite"]) == 0
