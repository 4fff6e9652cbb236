"""Which clips a codebook is fitted on, and that it labels training and validation alike: stage `targets` itself."""

import dataclasses
import shutil

import numpy as np
import pytest

from mmpretrain.config import CorpusConfig, DataConfig, mfcc
from mmpretrain.data.clips import open_clips
from mmpretrain.features.mfcc import mfcc39_of_frames
from mmpretrain.run.run import Run
from mmpretrain.stages import targets
from mmpretrain.targets import codebook, kmeans
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
        np.testing.assert_array_equal(store.clip(clip_id), distances.argmin(1), err_msg=clip_id)


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


@pytest.mark.parametrize(
    ("dim", "message"),
    [
        (39, r"labelled by another codebook or recipe \(.*; remove .*labelling to label all clips"),
        (12, r"the codebook has 12 dims but the features have 39: .*remove the codebook.npz of these targets"),
    ],
)
def test_a_codebook_that_was_changed_halfway_does_not_go_on(corpus, tmp_path, monkeypatch, dim, message):
    run, label = run_of(corpus, tmp_path), targets.label
    folder = tmp_path / "round1" / "targets" / "codebook1"

    def stop_at_validation(clips, *args):
        if (folder / "labelling").exists() and any(folder.glob("labelling/*/part-*")):
            raise KeyboardInterrupt
        return label(clips, *args)

    with monkeypatch.context() as patch:
        patch.setattr(targets, "label", stop_at_validation)
        with pytest.raises(KeyboardInterrupt):
            targets.make_targets(run.round(1))
    assert any(folder.glob("labelling/*/part-*")), "the training clips were labelled"
    np.savez(folder / "codebook.npz", centroids_KD=np.eye(4, dim, dtype=np.float32), inertia=1.0)
    if dim != 39:
        shutil.rmtree(folder / "labelling")
    with pytest.raises(ValueError, match=message):
        targets.make_targets(run_of(corpus, tmp_path).round(1))
    assert not (folder / "store").exists()
