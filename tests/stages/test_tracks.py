"""Tracks such as hands, heard beside the sound in fine-tuning: they tell what noise does not, and may be missing."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from mmpretrain.__main__ import main
from mmpretrain.config import CorpusConfig, FinetuneConfig, OptimizerConfig, emotion
from mmpretrain.config.checks import check
from mmpretrain.data.clips import open_clips
from mmpretrain.data.extras import Track, track_of
from mmpretrain.encoders.encoder import load_encoder
from mmpretrain.predict.judge import Judge
from mmpretrain.run.run import Run
from mmpretrain.stages.evaluate import evaluate
from mmpretrain.stages.finetune import finetune
from tests.corpus_fixture import make_clip, write_corpus
from tests.tiny import IMAGE_SIZE, tiny_model, tiny_run

T = 12


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Noise of six people, whose hands wave or rise by what they feel; of a fifth no track, of a fifth no hand."""
    random, clips = np.random.default_rng(0), []
    splits = ("train", "train", "train", "train", "validation", "test")
    for i in range(60):
        word = ("happy", "sad")[i // 6 % 2]
        wave = np.sin(np.arange(T) * (3.0 if word == "happy" else 0.5) + random.uniform(0, 6))
        hands = (wave[:, None] + 0.1 * random.normal(size=(T, 4))).astype(np.float16)
        tracks = {} if i % 5 == 0 else {"hands": hands * (i % 5 > 1)}
        hands[:2] = 0  # not found yet
        clip = make_clip(
            f"c{i}", T, video=False, size=IMAGE_SIZE, speaker=f"s{i % 6}", split=splits[i % 6],
            labels={"emotion": word}, tracks=tracks,
        )  # fmt: skip
        clips.append(dataclasses.replace(clip, audio=(random.normal(size=len(clip.audio)) * 3000).astype(np.int16)))
    return write_corpus(tmp_path_factory.mktemp("tracks") / "corpus", clips, IMAGE_SIZE, IMAGE_SIZE + 16)


def config_of(corpus, tmp_path, **changes):
    config = tiny_run(workdir=str(tmp_path / "run"), model=tiny_model(), rounds=())
    config.data.corpora, config.data.batch_multiple = (CorpusConfig(str(corpus)),), jax.device_count()
    fields = dict(
        encoder="none", tasks=(emotion("happy", "sad"),), num_steps=40, eval_every=20, batch_frames=400, dropout=0.0,
        tracks=("hands",), fusion="late_weights", modality_dropout=0.3, modality_table=True,
        optimizer=OptimizerConfig(schedule="tri_stage", peak_lr=1e-2, warmup_steps=0),
    )  # fmt: skip
    config.finetune = FinetuneConfig(**fields | changes)
    return config


def test_hands_are_heard_and_told_apart(corpus, tmp_path, capsys):
    config = config_of(corpus, tmp_path)
    finetune(Run(config))
    left = tmp_path / "run" / "finetune" / "scratch" / "fold1" / "encoder"
    stayed = "heads that stayed behind: emotion, as it hears tracks beside the encoder (finetune.tracks=('hands',))"
    with pytest.raises(ValueError, match=re.escape(f"the encoder has no head ({stayed}), hence nothing to predict")):
        Judge(load_encoder(left))
    main(["export", str(left), "--format=folder", f"--output={tmp_path}/again"])
    assert f"{stayed}; `mmpretrain evaluate` of its run asks them" in capsys.readouterr().err
    result = evaluate(Run(config))
    cells = {name: cell["emotion/ua"]["pooled"] for name, cell in result["modality_table"]["scratch"].items()}
    assert list(cells) == ["audio", "hands", "audio+hands"]
    assert set(result["modality_shares"]["scratch"]["emotion/ua"]) == {"audio", "hands"}
    assert cells["hands"] >= 0.75, "how hands move tells, noise does not; of some there are none"


def test_rows_are_of_the_frames_of_the_batch_and_zeros_where_a_number_is_not_known(corpus):
    table = open_clips((CorpusConfig(str(corpus)),))
    track = track_of(table, "hands")
    assert track == Track("hands", 4)
    clip = next(table.load(i) for i in range(len(table)) if table.clip_ids[i] == "c3")
    np.testing.assert_array_equal(track.rows(clip, range(3, 9)), clip.tracks["hands"][3:9].astype(np.float32))
    unknown = clip.tracks["hands"].copy()
    unknown[4, 1] = np.nan
    rows = track.rows(dataclasses.replace(clip, tracks={"hands": unknown}), range(3, 9))
    assert not rows[1].any()
    assert rows[[0, 2, 3]].any(1).all()
    assert track.rows(dataclasses.replace(clip, tracks={}), range(3, 9)).shape == (0, 4)


def test_what_cannot_be_heard_is_one_line(corpus, tmp_path):
    table = open_clips((CorpusConfig(str(corpus)),))
    with pytest.raises(ValueError, match=r"no clip of .* has a track 'gaze'; there are hands, units; prepare"):
        track_of(table, "gaze")
    with pytest.raises(ValueError, match=r"the track 'units' of .* is int32 \[\] a frame; one that is heard is"):
        track_of(table, "units")
    for changes, said in (
        (dict(tracks=("text",)), r"finetune\.tracks=\('text',\); it must be tracks of the corpora"),
        (dict(mixup=0.2), r"finetune\.mixup=0\.2; it must be 0 with finetune\.tracks"),
        (dict(classifier="frozen_linear", fusion="early"), r"finetune\.tracks=.*; it must be \(\) with"),
    ):
        with pytest.raises(ValueError, match=said):
            check(config_of(corpus, tmp_path, **changes))
