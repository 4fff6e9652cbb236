"""A made-up run for the tests of the report: numbers of a plausible shape, nothing measured."""

from types import SimpleNamespace

import numpy as np
import pytest

from mmpretrain.observe.wall_time import PARTS

CLASSES = ["neutral", "happy", "sad", "angry"]


def _summary():
    def result(hits):
        confusion = [[hits if i == j else (24 - hits) // 3 for j in range(4)] for i in range(4)]
        return {
            "ua": hits / 24,
            "wa": hits / 24,
            "wf1": hits / 24 - 0.01,
            "macro_f1": hits / 24 - 0.01,
            "confusion": confusion,
        }

    folds = [{"fold": 1} | result(18), {"fold": 2} | result(21)]
    return {
        "name": "demo",
        "seed": 1337,
        "rounds": [
            {
                "round": 1,
                "masked_accuracy": 0.31,
                "unmasked_accuracy": 0.48,
                "pnmi": 0.42,
                "purity": 0.39,
                "clusters_used": 50,
                "num_clusters": 50,
                "entropy_bits": 5.31,
                "loss": 2.71,
            },
            {
                "round": 2,
                "masked_accuracy": 0.52,
                "chance_accuracy": 0.04,
                "probe": {
                    "ua": 0.625,
                    "layer": 2,
                    "ua_by_layer": [0.4375, 0.5, 0.625],
                    "untrained": {"ua": 0.4375, "layer": 1, "ua_by_layer": [0.375, 0.4375, 0.25]},
                    "over_untrained": {"difference": 0.1875, "low": 0.05, "high": 0.3, "resampled": "6 speakers"},
                    "chance_ua": 0.25,
                    "clips": 48,
                    "training_clips": 240,
                    "protocol": "official v1",
                    "fold": 1,
                },
                "untrained_probe_ua": 0.4375,
                "unmasked_accuracy": 0.71,
                "pnmi": 0.63,
                "purity": 0.58,
                "clusters_used": 97,
                "num_clusters": 100,
                "entropy_bits": 6.12,
                "loss": 2.02,
            },
        ],
        "evaluation": {
            "task": "emotion",
            **result(21),
            "classes": CLASSES,
            "chance_ua": 0.25,
            "majority_wa": 0.25,
            "baseline_ua": 0.5,
            "from_scratch_ua": 0.625,
            "baseline": result(12),
            "from_scratch": result(15),
            "protocol": "official",
            "selection": "val",
            "folds": folds,
        },
        "export_max_error": 2.4e-7,
        "goodput": {
            f"round{number}/pretrain": dict.fromkeys(PARTS, 0.0)
            | {"useful_steps": 0.7, "compilation": 0.2, "redone_steps": 0.06, "other": 0.04}
            for number in (1, 2)
        },
        "wall_time_sec": {
            "prepare": 21.4,
            "round1/targets": 4.2,
            "round1/pretrain": 151.0,
            "round2/targets": 9.8,
            "round2/pretrain": 163.2,
            "finetune": 88.1,
            "export": 3.0,
        },
        "corpus": {
            "name": "synthetic",
            "fingerprint": "0123456789abcdef",
            "splits": {"train": {"clips": 240, "frames": 14_400, "hours": 0.16}, "test": {"clips": 48, "hours": 0.032}},
        },
    }


def _records():
    random = np.random.default_rng(3)
    records = []
    for stage, floor, top in (("round1/pretrain", 2.6, 0.31), ("round2/pretrain", 1.9, 0.52)):
        for step in range(0, 601, 10):
            learned = 1 - np.exp(-step / 180)
            noise = random.normal(scale=0.03, size=2)
            records.append(
                {
                    "stage": stage,
                    "step": step,
                    "train/loss": 4.2 - (4.2 - floor) * learned + noise[0],
                    "train/masked_accuracy": top * learned + 0.3 * noise[1],
                    "train/learning_rate": 1e-3,
                    "time/step_sec": 0.2,
                    "time/input_wait_sec": 0.01,
                    "throughput/frames_per_sec": 4000 + 100 * noise[0],
                    "throughput/audio_hours_per_hour": 160.0,
                    "memory/device_peak_bytes": 3_000_000_000,
                }
            )
            if step % 100 == 0:
                records[-1] |= {
                    "validation/loss": 4.25 - (4.2 - floor) * learned,
                    "validation/masked_accuracy": 0.95 * top * learned,
                }
    for name, top in (("pretrained", 0.85), ("from_scratch", 0.6)):
        for fold in (1, 2):
            for step in range(0, 301, 20):
                learned = 1 - np.exp(-step / 80)
                ua = 0.25 + (top - 0.25) * learned + random.normal(scale=0.02)
                loss = 1.4 - 1.5 * (top - 0.25) * learned + random.normal(scale=0.02)
                records.append(
                    {
                        "stage": f"finetune/{name}/fold{fold}",
                        "step": step,
                        "train/loss": loss,
                        "validation/emotion/ua": ua,
                        "validation/emotion/wa": ua,
                    }
                )
    return records


def _extras():
    random = np.random.default_rng(5)
    tables = []
    for clusters, sharpness in ((50, 2.0), (100, 6.0)):
        table = random.gamma(0.3, 20, size=(16, clusters))
        table[random.integers(0, 16, clusters), np.arange(clusters)] += random.gamma(2, 60 * sharpness, size=clusters)
        tables.append(table.astype(int))
    ramp = np.linspace(0, 255, 88)
    clips = []
    for title in ("clip 0001, speaker s03, happy", "clip 0107, speaker s11, sad"):
        face = np.clip(ramp[None, :, None] * random.uniform(0.3, 1, (8, 1, 88)), 0, 255).astype(np.uint8)
        clips.append({"title": title, "mouth": face[:, 30:78, 20:68], "face": face})
    return {
        "cluster_counts": [table.sum(0) for table in tables],
        "unit_tables": tables,
        "pictures": clips,
        "files": {"checkpoints": "round2/checkpoints", "metrics": "metrics.jsonl", "exported encoder": "export"},
    }


@pytest.fixture
def example():
    """Functions, so that a test may change what it gets: summary(), records(), extras()."""
    return SimpleNamespace(summary=_summary, records=_records, extras=_extras)
