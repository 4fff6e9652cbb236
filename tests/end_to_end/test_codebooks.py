"""Several codebooks at once, with everything that only the reference does, through targets, training and report."""

import json

import numpy as np

from mmpretrain.config import CorpusConfig, hidden, mfcc
from mmpretrain.observe.metrics import read_metrics
from mmpretrain.quirks import reference_quirks
from mmpretrain.stages.context import Run
from mmpretrain.stages.refine import refine
from mmpretrain.stages.summarize import report
from mmpretrain.stages.targets import open_targets
from tests.end_to_end import tiny


def make_run(corpus, workdir) -> Run:
    config, few = tiny.get_config(), dict(fit_passes=2, fit_restarts=1)
    config.workdir, config.finetune = str(workdir), None
    config.data.corpora = (CorpusConfig(str(corpus)),)
    config.model.modalities = ("audio",)
    for round_, targets in zip(
        config.rounds, [mfcc(6, **few) + mfcc(9, **few), hidden(1, 7, **few) + hidden(2, 5, **few)], strict=True
    ):
        round_.targets, round_.num_steps, round_.modality_dropout = targets, 4, 0.0
    return Run(reference_quirks(config, unpublished=True))


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

    train, _ = run.clips_of_round(1)
    stores = [open_targets(run, number) for number in (1, 2)]
    for row in train.rows[:3]:
        assert [len(store.clip(row.clip_id)) for store in stores[0]] == [4 * row.num_frames] * 2, "100 Hz"
        assert [len(store.clip(row.clip_id)) for store in stores[1]] == [row.num_frames] * 2, "25 Hz"

    logged = [record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if "train/loss" in record]
    assert {"train/masked_accuracy", "train/masked_accuracy_1", "train/masked_loss_2"} <= logged[-1].keys()
