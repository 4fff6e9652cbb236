"""`mmpretrain targets inspect`: what it says of a store whose every id is known, and what it refuses."""

import json

import numpy as np
import pytest

from mmpretrain.__main__ import main
from mmpretrain.targets.kmeans import Codebook
from mmpretrain.targets.store import write_store
from tests.corpus_fixture import make_clip, write_corpus

FRAMES, SIZE = 20, 24
SPEAKERS = {"s/a": "anna", "s/b": "anna", "s/c": "ben", "s/d": "ben"}
EMOTIONS = {"s/a": "happy", "s/b": "", "s/c": "happy", "s/d": "sad"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    clips = [
        make_clip(
            clip_id, FRAMES, size=SIZE, audio=clip_id != "s/b", speaker=SPEAKERS[clip_id], labels={"emotion": emotion}
        )
        for clip_id, emotion in EMOTIONS.items()
    ]
    return write_corpus(tmp_path_factory.mktemp("inspect") / "corpus", clips, SIZE, SIZE + 16)


@pytest.fixture
def store(corpus, tmp_path):
    """In a run that names the corpus. Anna has clusters 0 and 1, Ben 2 and 3, ten frames each; 4 is not used."""
    ids = {clip_id: np.repeat([0, 1] if speaker == "anna" else [2, 3], 10) for clip_id, speaker in SPEAKERS.items()}
    return make_store(tmp_path / "run", corpus, ids)


def make_store(run, corpus, ids, targets_per_frame=1):
    write_store(
        run / "round1" / "store", clip_ids=list(ids), ids_N=np.concatenate(list(ids.values())),
        offsets=np.cumsum([0, *map(len, ids.values())]),
        targets_per_frame=targets_per_frame, codebook=Codebook(np.zeros((5, 2), np.float32), 1.0),
        lineage_fields={
            "features": "hidden", "relative_to": "", "centres": "",
            "layer": 2, "source": "e", "clips": "f", "fit_splits": ["train"],
            "fit_clips": 4, "fit_frames": 80,
        },
    )  # fmt: skip
    (run / "config.json").write_text(json.dumps({"data": {"corpora": [{"path": str(corpus)}]}}))
    return run / "round1" / "store"


@pytest.fixture
def command(capsys):
    """command(*arguments): exit code, standard output, standard error."""

    def run(*arguments):
        capsys.readouterr()  # TFDS talks while it writes a corpus
        try:
            main(["targets", "inspect", *map(str, arguments)])
        except SystemExit as left:
            return left.code, *capsys.readouterr()
        return 0, *capsys.readouterr()

    return run


def test_numbers_table_and_picture(store, command, tmp_path):
    words = tmp_path / "words.csv"
    words.write_text("clip,start_s,end_s,word\na,0,0.4,sil\na,0.4,0.8,red\nc,0,0.4,sil\nc,0.4,0.8,at\n")
    code, out, _ = command(store, f"--alignments={words}", f"--output={tmp_path / 'out'}")
    assert code == 0
    result = json.loads((tmp_path / "out" / "inspect.json").read_text())
    assert (tmp_path / "out" / "clips.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["clips.png", "inspect.json"]
    assert (result["clusters_used"], result["num_clusters"], result["entropy_bits"]) == (4, 5, 2)
    assert (result["mean_run_frames"], result["run_histogram"]) == (10, [0] * 9 + [8, 0, 0])
    speaker, emotion = result["labels"]["speaker"], result["labels"]["emotion"]
    assert (speaker["clips"], speaker["entropy_bits"], speaker["nmi"]) == (4, 1, pytest.approx(1))
    assert speaker["nmi_shuffled"] < 1
    # Happy: half of Anna's clusters and Ben's; sad: Ben's only. H = 0.918 bits, H given the speaker = 2/3 of a bit.
    assert (emotion["clips"], emotion["kinds"], emotion["nmi"]) == (3, 2, pytest.approx(1 - 2 / 3 / 0.9182958))
    units = result["units"]
    assert set(units) == {"units", "phones", "words", "spoken phones"}
    assert (units["phones"]["frames"], units["spoken phones"]["frames"]) == (40, 20)
    # a: 10 sil, 10 red; c: 10 sil, 10 at; clusters 1 and 3 are one word each, 0 and 2 both silence.
    assert units["words"] | {"pnmi": 1} == {
        "frames": 40, "kinds": 3, "commonest_share": 0.5, "purity": 1.0, "cluster_purity": 0.75, "pnmi": 1,
    }  # fmt: skip
    assert units["words"]["pnmi"] == pytest.approx(1)
    assert 0.5 < units["phones"]["purity"] < 1, "two or three phones share a word's cluster"
    assert (units["units"]["frames"], units["units"]["kinds"]) == (80, 4)
    assert result["clusters"][1]["mostly"]["words"] == [["red", 0.5]], "the other half of the frames has no words"
    assert result["clusters"][4] == {
        "cluster": 4, "frames": 0, "mean_run_frames": 0, "mostly": {"units": [], "phones": [], "words": []},
    }  # fmt: skip
    lines = [line.split() for line in out.splitlines()]
    assert ["clusters", "used", "4", "/", "5"] in lines
    assert ["words", "40", "3", "50.0%", "100.0%", "75.0%", "1.000"] in lines


def test_a_store_at_100_hz_of_corpora_elsewhere(corpus, tmp_path, command):
    ids = {clip_id: np.arange(4 * FRAMES) % 5 for clip_id in SPEAKERS}
    store = make_store(tmp_path / "run", tmp_path / "moved", ids, targets_per_frame=4)
    code, _, err = command(store)
    assert code == 2
    assert "are not there, seen from this folder; say where with --corpus=DIR" in err.splitlines()[-1]
    code, out, _ = command(store, f"--corpus={corpus}")
    assert code == 0
    assert "1.00 frames (10 ms)" in out
    assert json.loads((store.parent / "inspection" / "inspect.json").read_text())["units"]["units"]["frames"] == 320


def test_what_a_user_gets_wrong_is_one_line(corpus, store, tmp_path, command):
    (tmp_path / "file").write_text("")
    other = write_corpus(tmp_path / "other", [make_clip("s/a", FRAMES, size=SIZE)], SIZE, SIZE + 16)
    alone = tmp_path / "alone"
    store_alone = make_store(alone, corpus, {"s/a": np.zeros(FRAMES + 2, int)})
    for arguments, words in (
        ((), "the command is `mmpretrain targets inspect STORE [--output=DIR]"),
        ((tmp_path / "nowhere",), "no whole target store is there; remove"),
        ((store, "--round=1"), "--round=1 is for targets and pretrain, not for targets inspect"),
        ((store, f"--output={tmp_path / 'file'}"), "cannot be made (it is a file); give another folder"),
        ((store, f"--alignments={tmp_path / 'none.csv'}"), "there is no such file"),
        ((store, f"--corpus={other}"), "3 of its 4 clips are not in"),
        ((store_alone,), "clip 's/a' has 22 targets but 20 frames; remove"),
    ):
        code, out, err = command(*arguments)
        assert (code, out) == (2, ""), words
        assert words in err.splitlines()[-1]
        assert err.splitlines()[-1].startswith("mmpretrain targets inspect: ")
        assert "Traceback" not in err
    (alone / "config.json").unlink()
    assert "give them with --corpus=DIR" in command(store_alone)[2]
