"""What a round learns beside its clusters: what somebody said of a clip, or what the embedding of a manifest hears."""

import numpy as np
import pytest

from mmpretrain.config import CorpusConfig, TaskConfig, emotion
from mmpretrain.data.clips import open_clips
from mmpretrain.data.manifest import MANIFEST_FILE, heard_words
from mmpretrain.data.retrieved import Heard, manifest_text
from mmpretrain.data.round_labels import round_labels, with_classes
from mmpretrain.run.sealed import write_sealed_text
from tests.corpus_fixture import make_clip, write_corpus

TASK = emotion("calm", "happy", "sad")
DOMAIN = TaskConfig("domain", "corpus", reversal=0.1)


def clips_of(*names, **labels):
    return [
        make_clip(f"{name}{i}", 5 + i, video=False, size=16, speaker=name, labels=labels and {"emotion": "sad"})
        for name in names
        for i in range(2)
    ]


@pytest.fixture
def corpora(tmp_path):
    """Labelled clips of a and b, and unlabelled ones of a and c, three of which a manifest has."""
    write_corpus(tmp_path / "said", clips_of("a", "b", emotion=True), 16, 32)
    clips = clips_of("a", "c")
    for i, clip in enumerate(clips):
        clip.audio[:] += i + 1  # or they would be those of the other corpus
    write_corpus(tmp_path / "wild", clips, 16, 32, {})
    pool = open_clips([CorpusConfig(str(tmp_path / "wild"))])
    rows = np.array([3, 0, 2])
    heard = Heard("emotion", np.array([0.1, 0.2, -0.3, 0.4]), ["sad"] * 4, ["sad", "sad", "calm", "glad"])
    write_sealed_text(tmp_path / "manifest" / MANIFEST_FILE, manifest_text(pool, rows, heard))
    return CorpusConfig(str(tmp_path / "said")), CorpusConfig(
        str(tmp_path / "wild"), retrieved=str(tmp_path / "manifest")
    )


def test_retrieved_clips_are_of_the_class_that_is_heard_and_others_of_the_one_that_is_said(corpora):
    table = open_clips(corpora)
    by_id = dict(zip(table.clip_ids, zip(*round_labels(table, TASK, corpora), strict=True), strict=True))
    assert by_id == {f"said/{name}": (2, True) for name in ("a0", "a1", "b0", "b1")} | {
        "wild/a0": (2, False), "wild/a1": (-1, False),  # which is not in the manifest
        "wild/c0": (0, False), "wild/c1": (-1, False),  # "glad" is no class of the task
    }  # fmt: skip
    alone = open_clips(corpora[1:])
    assert round_labels(alone, TASK, corpora[1:])[0].tolist() == [2, -1, 0, -1], "without a label column"
    with pytest.raises(ValueError, match=r"says nothing of the label 'mood' of its clips, but of emotion; retrieve"):
        heard_words(corpora[1].retrieved, "mood")


def test_domains_are_what_there_is_and_namesakes_of_two_corpora_are_two(corpora):
    table = open_clips(corpora)
    assert with_classes(DOMAIN, table, "rounds[0].tasks[1]") == ("said", "wild")
    of_speaker = TaskConfig("speaker", reversal=0.1)
    assert with_classes(of_speaker, table, "") == ("said/a", "said/b", "wild/a", "wild/c")
    alone = open_clips(corpora[1:])
    assert with_classes(of_speaker, alone, "") == ("a", "c")
    labels, said = round_labels(alone, TaskConfig("speaker", classes=("a", "c"), reversal=0.1), corpora[1:])
    assert (labels.tolist(), said.all()) == ([0, 0, 1, 1], True)
    with pytest.raises(
        ValueError, match=r"rounds\[0\]\.tasks\[1\]: all 4 training clips are of 'wild', so that there is"
    ):
        with_classes(DOMAIN, alone, "rounds[0].tasks[1]")
