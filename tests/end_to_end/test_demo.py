"""The demo in small: every stage once, in this process, and what a user finds afterwards."""

import json
import random
import signal
import time

import numpy as np
import pytest

import mmpretrain
from mmpretrain.__main__ import main
from mmpretrain.config import CorpusConfig
from mmpretrain.data.clips import open_clips
from mmpretrain.encoders.folder import read_config
from mmpretrain.export.avhubert.torch_file import open_torch_file
from mmpretrain.run.run import Run
from mmpretrain.stages.targets import make_targets
from tests.end_to_end import tiny
from tests.end_to_end.conftest import arguments, results, start, wait_for

# The recipe's longest piece of work between two of these is a few seconds.
MOMENTS = "round1/targets", "round1/pretrain", "round2/pretrain", "finetune/pretrained/fold1", "evaluation", "export"


@pytest.fixture(scope="module")
def workdir(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "demo"
    main(["run", *arguments(corpus, folder)])
    return folder


@pytest.fixture(scope="module")
def summary(workdir):
    return json.loads((workdir / "summary.json").read_text())


def test_summary_says_what_every_stage_reached(summary):
    assert [entry["round"] for entry in summary["rounds"]] == [1, 2]
    assert all(entry["probe"]["protocol"] == "official v1" for entry in summary["rounds"])
    for entry in summary["rounds"]:
        assert {"masked_accuracy", "pnmi", "purity", "clusters_used", "num_clusters"} <= set(entry)
        assert 0 < entry["pnmi"] < 1
        assert entry["num_clusters"] == 12
    emotion = summary["evaluation"]
    assert emotion["task"] == "emotion"
    assert emotion["chance_ua"] == 0.25
    assert all(0 <= emotion[name] <= 1 for name in ("ua", "wa", "wf1", "baseline_ua", "from_scratch_ua"))
    confusion = np.array(emotion["confusion"])
    assert confusion.shape == (4, 4)
    recalls = np.diag(confusion) / confusion.sum(1)
    assert emotion["ua"] == pytest.approx(recalls.mean())
    assert summary["seed"] == 1337
    stages = {"round1/targets", "round1/pretrain", "round2/targets", "round2/pretrain", "evaluation", "export"}
    assert stages <= set(summary["wall_time_sec"])


def test_exported_encoder_gives_the_features_of_the_checkpoint(summary, workdir, corpus):
    assert summary["export_max_error"] < 1e-4
    left, exported = workdir / "round2" / "pretrain" / "encoder", workdir / "export" / "encoder"
    assert (exported / "model.safetensors").read_bytes() == (left / "model.safetensors").read_bytes()
    encoder = mmpretrain.load_encoder(workdir / "export" / "encoder")
    clip = open_clips([CorpusConfig(str(corpus))]).load(0)
    features = encoder.features(audio=clip.audio, video=clip.face)
    assert features.shape == (clip.num_frames, 32)
    assert np.isfinite(features).all()
    assert not np.allclose(features, encoder.features(audio=clip.audio), atol=1e-3)  # the picture matters


def test_a_round_can_cluster_the_fine_tuned_encoder(workdir, corpus, tmp_path):
    """As configs/pretrain/small_real_emotion.py does."""
    encoder = workdir / "finetune" / "pretrained" / "fold1" / "encoder"
    lineage = read_config(encoder)[1]
    assert lineage["fine-tuned on"] == "neutral, happy, sad, angry"
    assert lineage["protocol"] == "official v1, fold 1"
    assert "Fine-tuned with mmpretrain" in (encoder / "README.md").read_text()
    before = mmpretrain.load_encoder(workdir / "round2" / "pretrain" / "encoder")
    sound = open_clips([CorpusConfig(str(corpus))]).load(0).audio
    assert not np.allclose(before.features(audio=sound), mmpretrain.load_encoder(encoder).features(audio=sound))

    config = tiny.get_config()
    config.workdir, config.data.corpora, config.finetune = str(tmp_path), (CorpusConfig(str(corpus)),), None
    config.label_efficiency.shares, config.rounds = (), config.rounds[1:]
    config.rounds[0].encoder, config.rounds[0].init = str(encoder), "random"
    make_targets(Run(config).round(1))
    assert Run(config).round(1).stores[0].lineage["source"] == lineage["fingerprint"]


@pytest.mark.slow
def test_the_run_as_an_avhubert_checkpoint_comes_back_and_serves_every_stage(workdir, corpus, tmp_path):
    main(["export", *arguments(corpus, workdir), "--format=avhubert"])
    public, encoder = workdir / "export" / "avhubert.pt", tmp_path / "public"
    with open_torch_file(public) as file:
        assert {"mask_emb", "label_embs_concat", "final_proj.weight", "final_proj.bias"} <= set(file.content["model"])
    main(["import-avhubert", str(public), f"--output={encoder}"])
    clip = open_clips([CorpusConfig(str(corpus))]).load(0)
    features = [mmpretrain.load_encoder(path).features(clip.audio, clip.face)
                for path in (encoder, workdir / "export" / "encoder")]  # fmt: skip
    np.testing.assert_array_equal(*features)

    mine = [*arguments(corpus, tmp_path / "mine"), f"--config.finetune.encoder={encoder}"]
    main(["finetune", *mine, "--config.finetune.compare_from_scratch=false"])
    assert (tmp_path / "mine" / "finetune" / "pretrained" / "fold1" / "result.json").exists()
    main(["targets", "--round=2", *mine, f"--config.rounds[1].encoder={encoder}"])
    source = json.loads((encoder / "config.json").read_text())["lineage"]["fingerprint"]
    stores = list((tmp_path / "mine" / "round2" / "targets").rglob("*.json"))
    assert any(f'"source": "{source}"' in store.read_text() for store in stores)


def test_report_needs_nothing_beside_it(workdir):
    page = (workdir / "report.html").read_text()
    assert page.count("data:image/svg+xml") >= 5  # curves, cluster usage, units, confusion, times
    assert page.count("data:image/png;base64") >= 2  # mouths and faces
    assert "http://" not in page
    assert "https://" not in page


def test_running_again_changes_nothing(workdir, corpus, capsys):
    before = {path: path.stat().st_mtime_ns for path in (workdir / "round1").rglob("*") if path.is_file()}
    metrics = (workdir / "metrics.jsonl").read_bytes()
    main(["run", *arguments(corpus, workdir)])
    assert capsys.readouterr().err.count("done already") == 13
    assert before == {path: path.stat().st_mtime_ns for path in (workdir / "round1").rglob("*") if path.is_file()}
    assert (workdir / "metrics.jsonl").read_bytes() == metrics


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("--config.rounds[0].targets[0].num_clusters=13", ("num_clusters", "12", "13", "workdir")),
        ("--config.seed=7", ("seed", "1337", "7")),
        ("--config.finetune.protocol=ravdess-6x4", ("finetune.protocol", "official", "ravdess-6x4")),
    ],
)
def test_another_recipe_does_not_continue_a_run(workdir, corpus, capsys, override, words):
    with pytest.raises(SystemExit) as stopped:
        main(["run", *arguments(corpus, workdir), override])
    assert stopped.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert all(word in message for word in words), message


def test_what_cannot_matter_may_change(workdir, corpus, capsys):
    main(["run", *arguments(corpus, workdir), "--config.log_every=5", "--config.data.num_workers=0"])
    assert capsys.readouterr().err.count("done already") == 13


@pytest.mark.slow
@pytest.mark.multiprocess
def test_a_run_that_is_killed_again_and_again_equals_it_bit_for_bit(workdir, corpus, tmp_path):
    rng, kills, killed = random.Random(5), 0, tmp_path / "demo"
    for stage in MOMENTS:
        process = start(corpus, killed)
        if wait_for(stage, killed, process):
            time.sleep(rng.uniform(0, 0.5))
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
    assert kills >= 4

    last = start(corpus, killed)
    output, _ = last.communicate(timeout=500)
    assert last.returncode == 0, output
    assert results(killed) == results(workdir)
