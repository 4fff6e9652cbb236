"""What of the tested clips an encoder has seen: said with every figure, refused with labels, left out where asked."""

import copy
import dataclasses
import json
import re

import jax
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import CorpusConfig, RunConfig, TaskConfig, emotion, hidden, mfcc
from mmpretrain.data.clips import open_clips
from mmpretrain.data.exposure import TrainingData
from mmpretrain.downstream.checking import check_folds
from mmpretrain.downstream.exposure import exposure_of_recipe
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.encoders.folder import TRAINING_DATA_FILE, read_training_data, save_encoder
from mmpretrain.files import DamagedError
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.run.folds import folds_left_out
from mmpretrain.run.run import Run
from mmpretrain.stages.evaluate import evaluate
from mmpretrain.stages.export import export
from mmpretrain.stages.finetune import finetune
from mmpretrain.stages.pretrain import pretrain
from mmpretrain.stages.report import report
from mmpretrain.stages.targets import make_targets
from tests.corpus_fixture import make_clip, write_corpus
from tests.tiny import tiny_model, tiny_round, tiny_run

LINE = "unlabelled_test_seen: {}"


def sounds(speakers, first_seed, **fields):
    for k, speaker in enumerate(speakers):
        for i in range(4):
            clip = make_clip(
                f"{speaker}{i}", 8, size=8, video=False, speaker=speaker, labels={"emotion": ("happy", "sad")[i % 2]},
                **fields,
            )  # fmt: skip
            random = np.random.default_rng(first_seed + 10 * k + i)
            yield dataclasses.replace(clip, audio=random.integers(-9000, 9000, len(clip.audio)).astype(np.int16))


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """labelled: six speakers of four clips each; elsewhere: two others."""
    root = tmp_path_factory.mktemp("corpora")
    made = {"labelled": sounds("abcdef", 0), "elsewhere": sounds("yz", 500)}
    return {name: str(write_corpus(root / name, list(clips), 8, 24)) for name, clips in made.items()}


def recipe(workdir, *pretrained_on, labelled: str, **changes) -> RunConfig:
    few = dict(fit_restarts=1, fit_passes=2, fit_share=1.0)
    rounds = (tiny_round(targets=mfcc(4, **few), num_steps=2), tiny_round(targets=hidden(1, 4, **few), num_steps=2))
    config = tiny_run(workdir=str(workdir), model=tiny_model("audio"), rounds=rounds)
    config.data.corpora = tuple(map(CorpusConfig, pretrained_on))
    config.data.batch_multiple, config.data.validation_share = jax.device_count(), 0.1
    config.health.min_clusters_used, config.health.min_accuracy_gain = 0.0, -1.0
    config.finetune.corpora, config.finetune.protocol = (CorpusConfig(labelled),), "speakers-3"
    config.finetune.tasks, config.finetune.folds = (emotion("happy", "sad"),), (2,)
    config.finetune.num_steps, config.finetune.eval_every, config.finetune.batch_frames = 2, 2, 200
    config.finetune.optimizer.warmup_steps, config.log_every = 0, 1
    return dataclasses.replace(config, **changes)


@pytest.mark.slow
def test_every_figure_says_what_of_its_test_clips_was_pretrained_on(corpora, tmp_path, capsys):
    config = recipe(tmp_path / "run", corpora["labelled"], labelled=corpora["labelled"])
    config.rounds = config.rounds[:1]
    run = Run(config)
    make_targets(run.round(1))
    pretrain(run.round(1))
    tested = open_clips(config.data.corpora)
    speakers = {"a", "b", "c", "d", "e", "f"}
    trained_on = set(run.clips[0].content_hashes.tolist())
    finetune(run)
    result = evaluate(run)
    table = dict(zip(tested.clip_ids, zip(tested.content_hashes.tolist(), tested.speakers, strict=True), strict=True))
    predictions = (tmp_path / "run" / "evaluation" / "pretrained-fold2.csv").read_text().splitlines()[1:]
    test = [table[line.split(",")[0]] for line in predictions]
    seen = sum(content in trained_on for content, _ in test)
    assert 0 < seen <= len(test) == 8
    assert len({speaker for _, speaker in test} & speakers) == 2
    line = f"{seen} of 8 clips, 2 of 2 speakers"

    told = capsys.readouterr().err
    assert f"its encoder will have seen without their labels: {line}; data.exclude_folds leaves" in told
    of_fold = re.escape(f"8 validation, 8 test clips; {LINE.format(line)}")
    assert re.search(rf"pretrained, fold 2: 8 training clips \(.*\), {of_fold}", told)
    assert f"on 8 test clips; {LINE.format(line)}" in told
    for figures, expected in (
        (result, line), (result["pretrained"], line), (result["scratch"], "no"), (result["baseline"], "no"),
        (result["folds"][0], line),
    ):  # fmt: skip
        assert figures["unlabelled_test_seen"] == expected
    assert "picture_baseline" not in result, "its network has no picture"
    assert result["exposure"]["test"]["clips_seen"] == seen
    assert result["exposure"]["validation"]["clips"] == 8
    fold = json.loads((tmp_path / "run" / "finetune" / "pretrained" / "fold2" / "result.json").read_text())
    assert fold["unlabelled_test_seen"] == line
    card = (tmp_path / "run" / "finetune" / "pretrained" / "fold2" / "encoder" / "README.md").read_text()
    assert f"| unlabelled_test_seen | {line} |" in card
    assert "labels: emotion of 16" in card

    export(run)
    card = (tmp_path / "run" / "export" / "encoder" / "README.md").read_text()
    assert f"| unlabelled_test_seen, speakers-3 v1, folds 2 | {line} |" in card
    assert f"| {len(trained_on)} clips; speakers: 6 of labelled; labels: none |" in card
    left, exported = (run.workdir / name / "encoder" for name in ("round1/pretrain", "export"))
    assert read_training_data(left).summary() == read_training_data(exported).summary()

    summary = report(run)
    assert summary["evaluation"]["unlabelled_test_seen"] == line
    assert f"ours, pretrained: {LINE.format(line)}" in capsys.readouterr().out
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"ours, pretrained: {LINE.format(line)}" in page
    assert f"ours, from scratch: {LINE.format('no')}" in page


def test_an_excluded_fold_is_in_no_clip_codebook_or_target(corpora, tmp_path, capsys):
    config = recipe(tmp_path / "run", corpora["labelled"], corpora["elsewhere"], labelled=corpora["labelled"])
    everybody = {speaker for table in Run(config).clips for speaker in table.speakers}
    config.data.exclude_folds = (2,)
    run = Run(config)
    kept = {speaker for table in run.clips for speaker in table.speakers}
    assert len(everybody) == 8
    assert len(everybody - kept) == 2
    assert "the 2 test speakers of speakers-3, with 8 clips of its corpora, are left out" in capsys.readouterr().err
    make_targets(run.round(1))
    store = run.round(1).stores[0]
    assert sorted(store.clip_ids) == sorted([*run.clips[0].clip_ids, *run.clips[1].clip_ids])
    assert str(exposure_of_recipe(run, run.round(1).training_data())[1]) == "no"


def test_of_one_fold_those_that_it_chooses_by_are_left_out_too(tmp_path, capsys):
    splits = {"train": "abc", "validation": "de", "test": "f"}
    clips = [clip for i, (split, who) in enumerate(splits.items()) for clip in sounds(who, 99 * i, split=split)]
    corpus = str(write_corpus(tmp_path / "labelled", clips, 8, 24))
    config = recipe(tmp_path / "run", corpus, labelled=corpus)
    config.finetune.protocol, config.finetune.folds, config.data.exclude_folds = "official", (1,), (1,)
    assert {speaker for table in Run(config).clips for speaker in table.speakers} == {*"abc"}
    assert "the 3 test and validation speakers of official, with 12 clips" in capsys.readouterr().err
    asked = {name: folds_left_out(name, 1) for name in ("official", "speakers-3")}
    assert asked == {"official": (1,), "speakers-3": (1, 2)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"finetune": None}, r"data\.exclude_folds=\(2,\), but the recipe has no finetune part"),
        ({"exclude_folds": (4,)}, r"data\.exclude_folds=\(4,\); it must be folds of finetune\.protocol=.*, 1 to 3"),
        ({"exclude_folds": (2, 2)}, r"data\.exclude_folds=\(2, 2\); it must be .*each once"),
        ({"folds": (1, 2)}, r"leaves in the test speakers of fold 1, which finetune\.folds=\(1, 2\) tests as well"),
        ({"folds": ()}, r"leaves in the test speakers of fold 1, which finetune\.folds=\(\) tests as well"),
    ],
)  # fmt: skip
def test_folds_to_exclude_must_be_those_that_are_tested(corpora, tmp_path, changes, message):
    config = recipe(tmp_path, corpora["labelled"], labelled=corpora["labelled"])
    config.data.exclude_folds = changes.get("exclude_folds", (2,))
    config.finetune.folds = changes.get("folds", config.finetune.folds)
    config.finetune = changes.get("finetune", config.finetune)
    with pytest.raises(ValueError, match=message):
        Run(config)


def test_excluding_says_when_it_cannot_or_need_not(corpora, tmp_path, capsys):
    config = recipe(tmp_path, corpora["elsewhere"], labelled=corpora["elsewhere"])
    config.data.exclude_folds = (2,)
    with pytest.raises(
        ValueError, match=r"data\.exclude_folds=\(2,\): .* only 2 speakers.* or set data\.exclude_folds="
    ):
        _ = Run(config).clips
    config.finetune.tasks = (emotion("angry", "fearful"),)
    assert sum(map(len, Run(config).clips)) == 8
    assert "no clip has a label of emotion, so there is no test clip to leave out" in capsys.readouterr().err
    config.finetune.tasks = (TaskConfig("mood", classes=("high", "low")),)  # a column that no corpus has
    config.finetune.select_by = "mood/ua"
    assert sum(map(len, Run(config).clips)) == 8
    assert "no clip has a label of mood, so there is no test clip to leave out" in capsys.readouterr().err
    config.finetune.tasks = (TaskConfig("corpus", classes=("elsewhere", "labelled")),)  # one that every corpus has
    config.finetune.select_by = "corpus/ua"
    with pytest.raises(ValueError, match=r"data\.exclude_folds=\(2,\): .* only 2 speakers"):
        _ = Run(config).clips
    both = recipe(tmp_path, corpora["labelled"], labelled=corpora["labelled"])
    tested = {speaker for table in Run(both).clips for speaker in table.speakers}
    both.data.exclude_folds = (2,)
    kept = {speaker for table in Run(both).clips for speaker in table.speakers}
    assert len(tested - kept) == 2
    both.data.exclude_speakers = tuple(kept)
    with pytest.raises(
        ValueError, match=r"no clip to train on \(8 of data\.exclude_folds=\(2,\), 16 of data\.exclude_sp"
    ):
        _ = Run(both).clips


def encoder_of(folder, config, data):
    save_encoder(folder, AVEncoder(config.model, rngs=nnx.Rngs(0)), lineage={"fingerprint": folder.name},
                 training_data=data)  # fmt: skip
    return str(folder)


def test_what_an_ancestor_saw_comes_down_through_rounds_and_warm_starts(corpora, tmp_path):
    config = recipe(tmp_path / "run", corpora["elsewhere"], labelled=corpora["labelled"])
    labelled = open_clips([CorpusConfig(corpora["labelled"])])
    # Of another run: it saw the labels of a and the clips of b, and is the source of round 1 alone.
    theirs = np.array([speaker in "ab" for speaker in labelled.speakers])
    known = np.array([speaker == "a" for speaker in labelled.speakers])
    other = TrainingData.of(labelled.select(theirs), {"emotion": known[theirs]})
    config.rounds[0].targets = hidden(1, 4)
    config.rounds[0].encoder = encoder_of(tmp_path / "other", config, other)
    config.rounds = (*config.rounds, tiny_round(targets=mfcc(4), init="previous_round"))
    run = Run(config)
    for number in (1, 2, 3):
        encoder_of(run.workdir / f"round{number}/pretrain/encoder", config, run.round(number).training_data())
    left = run.round(3).encoder.training_data
    assert left.summary()["clips"] == 8 + len(run.clips[0])
    assert left.summary()["labelled_clips"] == {"emotion": 4}
    assert left.speakers["labelled"] == {"a", "b"}
    unrelated = recipe(tmp_path / "run", corpora["elsewhere"], labelled=corpora["labelled"])
    assert Run(unrelated).round(1).training_data().summary()["labelled_clips"] == {}

    said = []
    for fold in (1, 2, 3):
        config.finetune.folds = (fold,)
        said.append(str(exposure_of_recipe(Run(config), left)[1]))
    assert sorted(said) == ["8 of 8 clips, 2 of 2 speakers; 4 clips with their label", "no", "no"] or sorted(said) == [
        "4 of 8 clips, 1 of 2 speakers", "4 of 8 clips, 1 of 2 speakers; 4 clips with their label", "no"
    ]  # fmt: skip


def test_a_test_clip_that_was_seen_with_its_label_is_refused_and_can_be_accepted(corpora, tmp_path, capsys):
    """Fine-tuned for one fold, tested on another."""
    config = recipe(tmp_path / "first", corpora["elsewhere"], labelled=corpora["labelled"], rounds=())
    config.finetune.encoder = "none"
    finetune(Run(config))
    tuned = tmp_path / "first" / "finetune" / "scratch" / "fold2" / "encoder"

    second = copy.deepcopy(config)
    second.workdir, second.finetune.encoder = str(tmp_path / "second"), str(tuned)
    second.finetune.compare_from_scratch = False
    finetune(Run(second))  # the same fold: its test clips were never seen
    assert evaluate(Run(second))["unlabelled_test_seen"] == "no"

    second.workdir, second.finetune.folds = str(tmp_path / "third"), (1,)
    message = (
        r"8 of the 8 test clips of speakers-3 v1, fold 1, were seen with their label \(emotion\) when "
        rf"{tuned} was trained.*finetune\.accept_seen_labels=True"
    )
    for stage in (finetune, evaluate):
        with pytest.raises(ValueError, match=message):
            stage(Run(second))
    assert not (tmp_path / "third" / "metrics.jsonl").exists(), "refused before the first step"

    second.finetune.accept_seen_labels = True
    finetune(Run(second))
    line = "8 of 8 clips, 2 of 2 speakers; 8 clips with their label"
    assert evaluate(Run(second))["pretrained"]["unlabelled_test_seen"] == line
    assert LINE.format(line) in capsys.readouterr().err


def test_a_double_in_training_and_test_is_refused(corpora, tmp_path):
    clips = list(sounds("abc", 0))
    splits = {"a": "train", "b": "validation", "c": "test"}
    clips = [dataclasses.replace(clip, split=splits[clip.speaker]) for clip in clips]
    double = dataclasses.replace(clips[0], clip_id="again", speaker="d", split="test", labels={"emotion": "sad"})
    corpus = write_corpus(tmp_path / "doubled", [*clips, double], 8, 24)
    config = recipe(tmp_path / "run", str(corpus), labelled=str(corpus), rounds=())
    config.finetune.encoder, config.finetune.protocol, config.finetune.folds = "none", "official", ()
    with pytest.raises(
        ValueError, match=r"1 of the 5 test clips of official v1, fold 1, are in its training or valid"
    ) as refusal:
        finetune(Run(config))
    assert "(again (test, d, sad) = a0 (train, a, happy))" in str(refusal.value)


def test_a_double_in_training_and_validation_is_said(corpora, tmp_path, capsys):
    clips = list(sounds("abc", 0))
    splits = {"a": "train", "b": "validation", "c": "test"}
    clips = [dataclasses.replace(clip, split=splits[clip.speaker]) for clip in clips]
    double = dataclasses.replace(clips[0], clip_id="again", speaker="d", split="validation")
    corpus = write_corpus(tmp_path / "doubled", [*clips, double], 8, 24)
    config = recipe(tmp_path / "run", str(corpus), labelled=str(corpus), rounds=())
    config.finetune.encoder, config.finetune.protocol, config.finetune.folds = "none", "official", ()
    check_folds(Finetuning(Run(config)))
    said = (
        "fold 1: 1 of the 5 validation clips are in its training part as well, under another id, so that it is chosen"
    )
    assert said in (told := capsys.readouterr().err)
    assert "again (validation, d, happy) = a0 (train, a, happy)" in told
    assert sum(map(len, Run(config).clips)) == 9
    assert "1 of the 4 training clips are validated on as well, under another id" in capsys.readouterr().err


def test_an_encoder_of_unknown_training_says_so(corpora, tmp_path):
    config = recipe(tmp_path / "run", corpora["elsewhere"], labelled=corpora["labelled"])
    encoder_of(tmp_path / "imported", config, None)
    assert str(exposure_of_recipe(Run(config), read_training_data(tmp_path / "imported"))[1]) == "unknown (imported)"
    assert "| unknown (imported) |" in (tmp_path / "imported" / "README.md").read_text()
    file = tmp_path / "imported" / TRAINING_DATA_FILE
    TrainingData().write(file)
    with pytest.raises(DamagedError, match=r"training_data\.npz is damaged"):
        read_training_data(tmp_path / "imported")
    file.unlink()
    with pytest.raises(DamagedError, match=r"training_data\.npz is missing"):
        read_training_data(tmp_path / "imported")
