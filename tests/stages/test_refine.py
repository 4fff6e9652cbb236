"""The walk over the rounds: what it shows, where it may begin, what it starts from, and when it stops by itself."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from mmpretrain.__main__ import main
from mmpretrain.config import CorpusConfig, HealthConfig, RunConfig, hidden, mfcc
from mmpretrain.run.collapse import Collapsed, check_predictions, check_targets
from mmpretrain.run.layout import round_figures, round_names, walk_table
from mmpretrain.run.run import Run
from mmpretrain.stages.refine import refine
from mmpretrain.stages.report import report
from tests.corpus_fixture import make_clip, write_corpus
from tests.tiny import IMAGE_SIZE, tiny_model, tiny_round, tiny_run

GO_ON = HealthConfig(min_accuracy_gain=-1)  # two steps learn nothing
SPEAKERS = {"a": "train", "b": "train", "c": "train", "d": "validation", "e": "test"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Five speakers who hum when sad and whistle when angry."""
    clips = []
    for speaker, split in SPEAKERS.items():
        for i in range(4):
            emotion = ("angry", "sad")[i % 2]
            clip = make_clip(
                f"{speaker}{i}",
                16 + i,
                size=IMAGE_SIZE,
                video=False,
                speaker=speaker,
                labels={"emotion": emotion},
                split=split,
            )
            random = np.random.default_rng(len(clips))
            noise = random.normal(size=len(clip.audio)) * 300
            hum = 3000 * np.sin(np.arange(len(clip.audio)) * (0.05 if emotion == "sad" else 0.8))
            clips.append(dataclasses.replace(clip, audio=(noise + hum).astype(np.int16)))
    return write_corpus(tmp_path_factory.mktemp("corpora") / "moods", clips, IMAGE_SIZE, IMAGE_SIZE + 16)


def make_config(corpus, workdir) -> RunConfig:
    few = dict(fit_share=1.0, fit_passes=2, fit_restarts=1)
    config = tiny_run(
        workdir=str(workdir), model=tiny_model("audio"), health=GO_ON,
        rounds=(
            tiny_round(targets=mfcc(5, **few), num_steps=2),
            tiny_round(targets=hidden(1, 4, **few), num_steps=2),
        ),
    )  # fmt: skip
    config.data.corpora = (CorpusConfig(str(corpus)),)
    config.data.batch_multiple = jax.device_count()
    config.finetune.tasks[0].classes = ("angry", "sad")
    return config


@pytest.fixture
def config(corpus, tmp_path) -> RunConfig:
    return make_config(corpus, tmp_path / "run")


def weights(run: Run, number: int) -> dict[str, np.ndarray]:
    state = nnx.state(run.round(number).encoder.load().module, nnx.Param)
    return {"/".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in nnx.to_flat_state(state)}


def distance(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    return max(np.abs(ours[name] - theirs[name]).max() for name in ours)


@pytest.mark.slow
def test_a_walk_shows_its_stages_and_the_health_of_each_round(config, capsys):
    run = Run(config)
    refine(run)
    shown = capsys.readouterr().err
    tables = re.findall(r"rounds\n(?: .*\n)+", shown)
    states = [re.findall(r"(?:targets|pretrain) +(done|running|to do)", table) for table in tables]
    assert states[0] == ["to do"] * 4
    assert states[1] == ["done", "running", "to do", "to do"]
    assert states[-1] == ["done"] * 4
    assert len(tables) == 5

    first, second = round_figures(run.workdir, 2)
    assert (first["round"], second["round"]) == (1, 2)
    store = run.round(1).stores[0]
    ids = np.concatenate([store.row(store.clip_ids.index(clip_id)) for clip_id in run.clips[1].clip_ids])
    assert {clip_id[0] for clip_id in run.clips[1].clip_ids} == {"d"}
    assert first["chance_accuracy"] == np.bincount(ids).max() / len(ids)
    assert first["probe"]["ua_by_layer"] == [1.0, 1.0, 1.0], "a hum can be told from a whistle by any encoder"
    assert (first["probe"]["training_clips"], first["probe"]["clips"]) == (12, 4)
    assert report(run)["rounds"] == [first, second]
    change = 100 * (second["masked_accuracy"] - first["masked_accuracy"])
    assert f"against round 1: masked accuracy {change:+.1f} points" in shown
    assert "42.5% masked accuracy in round 1 and 62.7% in round 2" in " ".join(shown.split())

    capsys.readouterr()
    refine(run)  # shows once that there is nothing to do
    assert capsys.readouterr().err.count("rounds\n") == 1


def test_rounds_are_walked_one_after_the_other_and_from_where_they_can_be(config, tmp_path):
    config.finetune = None
    with pytest.raises(ValueError, match=r"--rounds=2-2: round 2 is made from round 1, but .*round1/targets is to do"):
        refine(Run(config), range(2, 3))
    refine(Run(config), range(1, 2))
    assert not (tmp_path / "run" / "round2").exists()
    config.rounds[0].num_steps = 3
    with pytest.raises(ValueError, match=r"made with another recipe \(rounds\[0\]\.num_steps was 2 and is 3"):
        refine(Run(config), range(2, 3))  # what it would be made from is no longer what the recipe says
    config.rounds[0].num_steps = 2
    refine(Run(config), range(2, 3))
    assert [entry["round"] for entry in round_figures(Run(config).workdir, 2)] == [1, 2]

    # From an encoder of elsewhere: the first round with it is not the first of the recipe, and needs no other.
    config.rounds[1].encoder = str(Run(config).round(1).encoder.path)
    config.workdir = str(tmp_path / "from_encoder")
    refine(Run(config), range(2, 3))
    assert [entry["round"] for entry in report(Run(config))["rounds"]] == [2]
    ids = Run(config).round(2).stores[0].ids
    config.workdir = str(tmp_path / "run")
    assert np.array_equal(ids, Run(config).round(2).stores[0].ids)


@pytest.mark.slow
def test_a_round_starts_from_the_weights_of_the_one_before_if_told_to(config, tmp_path):
    config.rounds[1].optimizer.peak_lr, config.finetune = 1e-9, None
    run = Run(config)
    refine(run)
    assert distance(weights(run, 2), weights(run, 1)) > 1e-2
    config.rounds[1].init = "previous_round"
    with pytest.raises(ValueError, match=r"rounds\[1\]\.init was 'random' and is 'previous_round'"):
        refine(Run(config))
    config.workdir = str(tmp_path / "warm")
    run = Run(config)
    refine(run)
    assert distance(weights(run, 2), weights(run, 1)) < 1e-6
    config.rounds[1].encoder = str(run.round(1).encoder.path)
    config.workdir = str(tmp_path / "again")
    with pytest.raises(ValueError, match="round 2 is made from round 1"):  # its weights
        refine(Run(config), range(2, 3))


DEAD_RECIPE = """
from mmpretrain.config import HealthConfig
from tests.stages.test_refine import make_config

def get_config():
    config = make_config({corpus!r}, {workdir!r})
    config.rounds[0].optimizer.peak_lr = 1e-12
    config.health, config.finetune = HealthConfig(), None
    return config
"""


def test_a_round_that_learned_nothing_ends_the_walk_with_advice(corpus, tmp_path, monkeypatch, capsys):
    """By the command: exit code 4, one line, and nothing of the next round; the user may go on all the same."""
    (tmp_path / "dead.py").write_text(DEAD_RECIPE.format(corpus=str(corpus), workdir=str(tmp_path / "run")))
    command = ["refine", f"--config={tmp_path / 'dead.py'}"]
    for _ in range(2):  # the second time it has nothing to do, and says the same
        with pytest.raises(SystemExit) as left:
            main(command)
        assert left.value.code == 4
        message = capsys.readouterr().err.splitlines()[-1]
        assert message.startswith("mmpretrain refine: round 1 has collapsed: masked accuracy ")
        assert "rounds[0].optimizer.peak_lr" in message
        assert not (tmp_path / "run" / "round2").exists()
    main([*command, "--config.health.min_accuracy_gain=-1"])
    assert (tmp_path / "run" / "round2" / "pretrain" / "result.json").exists()


def test_what_counts_as_collapsed():
    limits = HealthConfig(min_clusters_used=0.5, min_accuracy_gain=0.01)
    check_targets(1, [{"clusters_used": 5, "num_clusters": 10}], limits)
    with pytest.raises(Collapsed, match=r"round 2 .* 4 of 10 clusters.*rounds\[1\]\.targets\[1\]\.layer"):
        check_targets(2, [{"clusters_used": 9, "num_clusters": 10}, {"clusters_used": 4, "num_clusters": 10}], limits)

    def predicted(accuracy, chance):
        check_predictions(1, [{"masked_accuracy": accuracy, "chance_accuracy": chance}], limits)

    predicted(0.32, 0.3)
    predicted(None, None)  # no validation clips
    for accuracy in (0.1, 0.3, 0.305):
        with pytest.raises(Collapsed, match=rf"masked accuracy {100 * accuracy:.1f} % .* has 30\.0 %"):
            predicted(accuracy, 0.3)


def test_an_interrupted_stage_is_shown_at_its_step(config, tmp_path):
    folder = tmp_path / "run" / "round1" / "pretrain"
    (folder / "checkpoints" / "1").mkdir(parents=True)
    (folder / "checkpoints" / "2.orbax-checkpoint-tmp").mkdir()  # was being written
    (folder / "recipe.json").write_text("{}")
    wall = {"attempts": 1, "doing": "", "updated": 0.0, "seconds": {"useful_steps": 60.0, "startup": 15.0, "down": 9.0}}
    (folder / "wall_time.json").write_text(json.dumps(wall))
    workdir, names = Path(config.workdir), round_names(2)
    assert re.search(r"round1/pretrain +partly done, step 1 saved +1 min 15 s +71\.4%\n", walk_table(workdir, names))
    walking = walk_table(workdir, names, running="round1/pretrain")
    assert re.search(r"round1/pretrain +running, step 1 saved +1 min 15 s +71\.4%\n", walking)


def test_without_labelled_clips_the_walk_goes_on_and_says_so(config, capsys):
    config.finetune.tasks[0].classes = ("happy", "calm")
    run = Run(config)
    refine(run, range(1, 2))
    assert round_figures(run.workdir, 1)[0]["probe"] is None
    said = capsys.readouterr().err
    assert "round 1: no linear probe: finetune.protocol='official' on " in said
    assert "none of the 20 clips has a label 'emotion'" in said
