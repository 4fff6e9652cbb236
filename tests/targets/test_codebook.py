"""Which clips a codebook is fitted on, and that it labels training and validation alike: stage `targets` itself."""

import dataclasses
import shutil

import numpy as np
import pytest

from mmpretrain.config import CorpusConfig, DataConfig, mfcc
from mmpretrain.data.clips import ClipTable, open_clips
from mmpretrain.features.mfcc import mfcc39_of_frames
from mmpretrain.run.run import Run
from mmpretrain.stages import targets
from mmpretrain.targets import codebook, kmeans, labelling, progress
from mmpretrain.targets.progress import LabelProgress
from mmpretrain.targets.quality import cluster_quality, joint_counts
from tests.corpus_fixture import make_clip, write_corpus
from tests.tiny import tiny_model, tiny_round, tiny_run

NUM_CLIPS = 40


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Clips of noise, each louder than the one before; every fifth is for validation."""
    rng = np.random.default_rng(0)
    clips = []
    for i in range(NUM_CLIPS):
        clip = make_clip(f"clip{i:02}", 8 + i % 5, video=False, size=16, split="train" if i % 5 else "validation")
        noise = rng.standard_normal(len(clip.audio)) * 100 * (i + 1)
        clips.append(dataclasses.replace(clip, audio=noise.astype(np.int16)))
    return write_corpus(tmp_path_factory.mktemp("corpus") / "noise", clips, 16, 32)


def run_of(corpus, workdir, **fit) -> Run:
    data = DataConfig(corpora=(CorpusConfig(str(corpus)),), batch_frames=200, bucket_frames=(20,))
    rounds = (tiny_round(targets=mfcc(4, **fit)),)
    return Run(tiny_run(workdir=str(workdir), data=data, model=tiny_model("audio"), rounds=rounds))


def features_of(table):
    return {clip.clip_id: mfcc39_of_frames(clip.audio, clip.num_frames) for clip in map(table.load, range(len(table)))}


def test_fitted_on_a_share_of_the_training_clips_and_labels_all_with_one_codebook(corpus, tmp_path, monkeypatch):
    fitted_on = []

    def fit(frames_ND, *args, **kwargs):
        fitted_on.append(frames_ND)
        return kmeans.fit(frames_ND, *args, **kwargs)

    monkeypatch.setattr(codebook, "fit", fit)
    run = run_of(corpus, tmp_path, fit_share=0.25)
    train, validation = run.clips
    targets.make_targets(run.round(1))
    (store,) = run.round(1).stores

    of_train = features_of(train)
    chosen = [train.clip_ids[row] for row in codebook.fit_rows(train, 0.25, 10**9)]
    np.testing.assert_array_equal(fitted_on[0], np.concatenate([of_train[clip_id] for clip_id in chosen]))
    assert store.lineage["fit_splits"] == ["train"]
    assert (store.lineage["fit_clips"], store.lineage["fit_frames"]) == (8, len(fitted_on[0]))
    assert (len(train), len(validation)) == (32, 8)
    for clip_id, features_TD in (of_train | features_of(validation)).items():
        distances = np.square(features_TD[:, None] - store.codebook.centroids).sum(-1)
        row = store.clip_ids.index(clip_id)
        np.testing.assert_array_equal(store.row(row), distances.argmin(1), err_msg=clip_id)


def test_clips_are_drawn_by_id(corpus):
    table = open_clips((CorpusConfig(str(corpus)),))
    backwards = table.select(np.arange(len(table))[::-1])

    def drawn(table, share, max_frames=10**9):
        return {table.clip_ids[row] for row in codebook.fit_rows(table, share, max_frames)}

    assert len(drawn(table, 0.1)) == 4
    assert drawn(table, 0.1) == drawn(backwards, 0.1) < drawn(table, 0.5)
    capped = drawn(table, 0.5, max_frames=100)
    assert capped < drawn(table, 0.5)
    frames = sum(n for clip, n in zip(table.clip_ids, table.lengths, strict=True) if clip in capped)
    assert 100 - 12 < frames <= 100
    assert len(drawn(table, 0.5, max_frames=1)) == 1


def test_a_sample_cut_short_is_said(corpus, tmp_path, capsys):
    targets.make_targets(run_of(corpus, tmp_path, fit_share=0.5, fit_max_frames=60).round(1))
    message = "not the 16 of targets.fit_share=0.5: more would pass targets.fit_max_frames=60"
    assert message in capsys.readouterr().err


def interrupt(monkeypatch, run, after: int) -> None:
    """Makes the targets of round 1 until so many groups of clips are labelled; each group is kept by itself."""
    add, added = LabelProgress.add, []

    def add_and_stop(self, labelled):
        if len(added) == after:
            raise KeyboardInterrupt
        added.append(labelled)
        add(self, labelled)

    with monkeypatch.context() as patch:
        patch.setattr(LabelProgress, "add", add_and_stop)
        patch.setattr(progress, "PART_FRAMES", 1)
        with pytest.raises(KeyboardInterrupt):
            targets.make_targets(run.round(1))


def files_of(store):
    return {file.name: file.read_bytes() for file in store.iterdir()}


@pytest.mark.parametrize("damage", ["nothing", "a part", "all parts", "the codebook", "the codebook, cut"])
def test_what_was_stopped_and_damaged_ends_with_the_same_bits(corpus, tmp_path, monkeypatch, capsys, damage):
    monkeypatch.setattr(labelling, "LABEL_CLIPS", 4)
    targets.make_targets(run_of(corpus, tmp_path / "straight").round(1))
    interrupt(monkeypatch, run_of(corpus, tmp_path / "stopped"), after=5)
    folder = tmp_path / "stopped" / "round1" / "targets" / "codebook1"
    parts = sorted(folder.glob("labelling/*/part-*"))
    assert len(parts) == 5
    fitted = folder / "fitted" / "codebook.npz"
    for file in {"a part": parts[2:3], "all parts": parts}.get(damage, []):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    if "codebook" in damage:
        content = bytearray(fitted.read_bytes())
        content[len(content) // 2] ^= 1
        fitted.write_bytes(content[:20] if "cut" in damage else content)
    loaded = []
    monkeypatch.setattr(ClipTable, "open", lambda self, i, open=ClipTable.open: loaded.append(i) or open(self, i))
    capsys.readouterr()
    targets.make_targets(run_of(corpus, tmp_path / "stopped").round(1))
    told = capsys.readouterr().err
    assert told.count("is damaged: ") == {"nothing": 0, "all parts": 5}.get(damage, 1)
    again = {"nothing": 20, "a part": 24, "all parts": 40}.get(damage)
    if again:
        assert len(loaded) == again, "what was labelled is not looked at again"
    straight = tmp_path / "straight" / "round1" / "targets" / "codebook1" / "store"
    assert files_of(folder / "store") == files_of(straight)
    assert not (folder / "labelling").exists()


def test_labels_of_another_codebook_are_not_gone_on_with(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(labelling, "LABEL_CLIPS", 4)
    interrupt(monkeypatch, run_of(corpus, tmp_path), after=5)
    folder = tmp_path / "round1" / "targets" / "codebook1"
    codebook.save_codebook(folder / "fitted", kmeans.Codebook(np.eye(4, 39, dtype=np.float32), 1.0))
    message = r"labelled by another codebook or recipe \(.*; remove .*labelling to label all clips"
    with pytest.raises(ValueError, match=message):
        targets.make_targets(run_of(corpus, tmp_path).round(1))
    shutil.rmtree(folder / "labelling")
    codebook.save_codebook(folder / "fitted", kmeans.Codebook(np.eye(4, 12, dtype=np.float32), 1.0))
    with pytest.raises(ValueError, match=r"the codebook has 12 dims but the features have 39: .*remove the folder"):
        targets.make_targets(run_of(corpus, tmp_path).round(1))
    assert not (folder / "store").exists()


def test_every_clip_is_read_once_for_labels_and_units_alike(corpus, tmp_path, monkeypatch):
    """No process goes through the corpus another time to see what units its clips have."""
    loaded = []
    monkeypatch.setattr(ClipTable, "open", lambda self, i, open=ClipTable.open: loaded.append(i) or open(self, i))
    run = run_of(corpus, tmp_path, fit_share=0.25)
    targets.make_targets(run.round(1))
    assert len(loaded) == 8 + NUM_CLIPS
    (store,) = run.round(1).stores
    units = np.concatenate(
        [run.clips[split].load(i).tracks["units"] for split, n in ((0, 32), (1, 8)) for i in range(n)]
    )
    np.testing.assert_array_equal(store.unit_counts, joint_counts(store.ids, units, 4))
    assert store.lineage["quality"] == cluster_quality(store.ids, units, 4, store.offsets)


def test_no_clip_is_read_to_find_that_there_are_no_units(corpus, tmp_path, monkeypatch):
    clips = [make_clip(f"clip{i:02}", 8, video=False, size=16) for i in range(6)]
    clips = [dataclasses.replace(clip, tracks={}) for clip in clips]
    run = run_of(write_corpus(tmp_path / "plain", clips, 16, 32), tmp_path / "run", fit_share=1.0)
    targets.make_targets(run.round(1))
    monkeypatch.setattr(ClipTable, "open", lambda self, i: pytest.fail("a clip was read"))
    (store,) = run.round(1).stores
    assert store.unit_counts is None
    assert "pnmi" not in store.lineage["quality"]
