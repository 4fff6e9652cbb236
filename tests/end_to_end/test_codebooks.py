"""Several codebooks at once, with everything that only the reference does, through targets, training and report."""

import dataclasses
import json

import numpy as np
import pytest

from mmpretrain.config import (
    CorpusConfig,
    cepstra,
    face_appearance,
    face_geometry,
    fbank,
    hidden,
    mfcc,
    prosody,
    reference_quirks,
)
from mmpretrain.data.clips import open_clips
from mmpretrain.observe.metric_log import read_metrics
from mmpretrain.records import NUM_BLENDSHAPES
from mmpretrain.run.run import Run
from mmpretrain.stages.refine import refine
from mmpretrain.stages.report import report
from tests.corpus_fixture import write_corpus
from tests.end_to_end import tiny


def make_run(corpus, workdir) -> Run:
    config, few = tiny.get_config(), dict(fit_passes=2, fit_restarts=1)
    config.workdir, config.finetune, config.label_efficiency.shares = str(workdir), None, ()
    config.data.corpora = (CorpusConfig(str(corpus)),)
    config.model.modalities = ("audio",)
    for round_, targets in zip(
        config.rounds, [mfcc(6, **few) + mfcc(9, **few), hidden(1, 7, **few) + hidden(2, 5, **few)], strict=True
    ):
        round_.targets, round_.num_steps, round_.modality_dropout = targets, 4, 0.0
    return Run(reference_quirks(config, unpublished=True))


@pytest.mark.slow
def test_every_codebook_is_made_learned_and_reported(corpus, tmp_path):
    run = make_run(corpus, tmp_path / "run")
    refine(run)
    summary = report(run)
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary

    num_clusters = [[codebook["num_clusters"] for codebook in entry["codebooks"]] for entry in summary["rounds"]]
    assert num_clusters == [[6, 9], [7, 5]]
    for entry in summary["rounds"]:
        each = [codebook["masked_accuracy"] for codebook in entry["codebooks"]]
        assert np.isclose(np.mean(each), entry["masked_accuracy"])
        assert 0 < entry["codebooks"][1]["pnmi"] < 1

    train, _ = run.round(1).clips
    stores = [run.round(number).stores for number in (1, 2)]
    for row, length in enumerate(train.lengths[:3]):
        assert [len(store.row(row)) for store in stores[0]] == [4 * length] * 2, "100 Hz"
        assert [len(store.row(row)) for store in stores[1]] == [length] * 2, "25 Hz"

    logged = [record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if "train/loss" in record]
    assert {"train/masked_accuracy", "train/masked_accuracy_1", "train/masked_loss_2"} <= logged[-1].keys()


@pytest.fixture(scope="module")
def faces(corpus, tmp_path_factory):
    """The clips of the embedded corpus with blendshapes that follow the units; every fifth has none, as if drawn."""
    table, rng = open_clips([CorpusConfig(str(corpus))]), np.random.default_rng(0)
    of_unit = rng.random((table.load(0).tracks["units"].max() + 20, NUM_BLENDSHAPES))
    clips = [table.load(i) for i in range(len(table))]

    def scores_of(clip):
        return of_unit[clip.tracks["units"]].astype(np.float16)

    clips = [
        clip if i % 5 == 0 else dataclasses.replace(clip, tracks=clip.tracks | {"blendshapes": scores_of(clip)})
        for i, clip in enumerate(clips)
    ]
    return write_corpus(tmp_path_factory.mktemp("corpus") / "faces", clips, 18, 20)


@pytest.mark.slow
def test_codebooks_of_sound_prosody_and_face_have_heads_of_their_own(faces, tmp_path, capsys):
    config, few = tiny.get_config(), dict(fit_share=1.0, fit_passes=3, fit_restarts=1)
    config.workdir, config.finetune, config.label_efficiency.shares = str(tmp_path / "run"), None, ()
    config.data.corpora = (CorpusConfig(str(faces)),)
    made_of = mfcc(6, **few) + fbank(7, **few) + prosody(5, **few) + face_geometry(8, **few) + face_appearance(9, **few)
    made_of += cepstra(4, **few)
    config.model.modalities, config.rounds = ("audio",), config.rounds[:1]  # faces to be told from sound
    config.rounds[0].targets, config.rounds[0].num_steps, config.rounds[0].modality_dropout = made_of, 4, 0.0
    run = Run(config)
    refine(run)
    (train, validation), told = run.clips, capsys.readouterr().err
    lacking = {clip for table in (train, validation) for clip in table.select(~table.has("blendshapes")).clip_ids}
    in_training = sum(clip_id in lacking for clip_id in train.clip_ids)
    assert in_training > 0
    message = f"{in_training} of {len(train)} training clips have no blendshapes, hence no face geometry targets"
    assert told.count(message) == 1
    assert "are left out" not in told
    assert run.round(1).clips[0].clip_ids == train.clip_ids, "a clip that lacks one target keeps the others"

    stores = run.round(1).stores
    assert [(store.lineage["features"], store.lineage["num_clusters"]) for store in stores] == [
        ("mfcc", 6), ("fbank", 7), ("prosody", 5), ("face_geometry", 8), ("face_appearance", 9),
        ("cepstra", 4),
    ]  # fmt: skip
    everyone = {*train.clip_ids, *validation.clip_ids}
    for store in stores:
        expected = everyone - lacking if store.lineage["features"] == "face_geometry" else everyone
        assert set(store.clip_ids) == expected
    chances = json.loads((tmp_path / "run" / "round1" / "health.json").read_text())["chance_accuracy"]
    _, rows = run.round(1).codebooks[3].rows
    for row, clip_id in zip(rows, validation.clip_ids, strict=True):
        assert (row < 0) if clip_id in lacking else stores[3].clip_ids[row] == clip_id
    of_faces = np.concatenate([stores[3].row(row) for row in rows if row >= 0])
    assert chances[3] == np.bincount(of_faces).max() / len(of_faces)
    quality = [store.lineage["quality"]["pnmi"] for store in stores]
    assert quality[3] > 0.25, "the blendshapes of this corpus are made of its units"
    card = (tmp_path / "run" / "round1" / "pretrain" / "encoder" / "README.md").read_text()
    assert "5 clusters of prosody and 8 clusters of face geometry and 9 clusters of face appearance" in card
    logged = [record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if "train/loss" in record]
    assert {f"train/masked_accuracy_{codebook}" for codebook in range(1, 7)} <= logged[-1].keys()


def test_a_round_is_of_the_clips_that_have_any_of_its_targets(faces, tmp_path, capsys):
    config, few = tiny.get_config(), dict(fit_share=1.0, fit_passes=3, fit_restarts=1)
    config.workdir, config.data.corpora = str(tmp_path / "run"), (CorpusConfig(str(faces)),)
    config.rounds = config.rounds[:1]
    config.rounds[0].targets = face_geometry(8, **few)
    run = Run(config)
    everyone, (train, _) = run.clips[0], run.round(1).clips
    assert train.clip_ids == everyone.select(everyone.has("blendshapes")).clip_ids
    left_out = len(everyone) - len(train)
    assert left_out > 0
    assert f"round 1: {left_out} of {len(everyone)} training clips have no targets and are left out" in (
        capsys.readouterr().err
    )


def test_a_round_that_no_clip_has_the_features_for_is_refused(corpus, tmp_path):
    config = tiny.get_config()
    config.workdir = str(tmp_path / "run")
    config.data.corpora = (CorpusConfig(str(corpus)),)
    config.rounds[0].targets = mfcc(5) + face_geometry(5)
    message = (
        r"rounds\[0\]\.targets\[1\]\.features='face_geometry' needs blendshapes, but none of the \d+ training clips"
    )
    with pytest.raises(ValueError, match=message):
        refine(Run(config))
