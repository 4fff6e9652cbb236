"""Fewer training labels: drawn by class and by clip id, each draw's fewer among its more; the rest stays whole."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from mmpretrain.config import CorpusConfig, FinetuneConfig, emotion
from mmpretrain.data.labels import few_of
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.run.run import Run
from mmpretrain.stages.evaluate import evaluate
from mmpretrain.stages.finetune import finetune
from tests.corpus_fixture import make_clip, write_corpus
from tests.tiny import IMAGE_SIZE, tiny_model, tiny_run

COUNTS = {"happy": 40, "sad": 20, "angry": 3}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """In each split so many clips of each emotion, of noise; the mood is another label of each, seldom "low"."""
    random, clips = np.random.default_rng(0), []
    for split, (word, count) in itertools.product(("train", "validation", "test"), COUNTS.items()):
        for i in range(count):
            labels = {"emotion": word, "mood": "low" if (word, i) == ("happy", 0) else "high"}
            clip = make_clip(
                f"{split}-{word}-{i}", 6, video=False, size=IMAGE_SIZE, split=split, speaker=f"{split}{i % 2}",
                labels=labels,
            )  # fmt: skip
            noise = random.integers(-3000, 3000, len(clip.audio)).astype(np.int16)
            clips.append(dataclasses.replace(clip, audio=noise))
    path = tmp_path_factory.mktemp("corpora") / "moods"
    return write_corpus(path, clips, IMAGE_SIZE, IMAGE_SIZE + 16, {"emotion": "class", "mood": "class"})


def run_of(corpus, path, *tasks, seed=1, **changes) -> Run:
    part = FinetuneConfig(encoder="none", tasks=(emotion(*COUNTS), *tasks), **changes)
    part.optimizer.warmup_steps = 0
    config = tiny_run(workdir=str(path), model=tiny_model("audio"), rounds=(), finetune=part, seed=seed)
    config.data.corpora = (CorpusConfig(str(corpus)),)
    return Run(config)


def drawn(run: Run) -> set[str]:
    finetuning = Finetuning(run)
    return {finetuning.table.clip_ids[row] for row in finetuning.fold(1).train}


def test_a_draw_keeps_every_class_and_its_fewer_are_among_its_more(corpus, tmp_path):
    shares = (0.01, 0.1, 0.25, 0.5, 1.0)
    draws = [[drawn(run_of(corpus, tmp_path, label_share=s, label_draw=d)) for s in shares] for d in range(3)]
    for of_draw in draws:
        for fewer, more in itertools.pairwise(of_draw):
            assert fewer < more
        for share, ids in zip(shares, of_draw, strict=True):
            counts = {word: sum(f"-{word}-" in clip_id for clip_id in ids) for word in COUNTS}
            assert counts == {word: max(1, int(share * count + 0.5)) for word, count in COUNTS.items()}
    assert draws[0][1] != draws[1][1] != draws[2][1], "another draw is of other clips"
    assert draws[0][4] == draws[1][4]
    assert drawn(run_of(corpus, tmp_path, label_share=0.1, seed=7)) == draws[0][1], "seeds are compared on one draw"

    few, more = (drawn(run_of(corpus, tmp_path, labels_per_class=n)) for n in (2, 8))
    assert few < more
    assert (len(few), len(more)) == (6, 8 + 8 + 3), "as many as there are"


def test_the_order_of_clips_and_other_classes_have_no_say():
    labels, draws = np.arange(40) % 4, np.random.default_rng(0).random(40)
    kept = few_of(labels, draws, share=0.3, per_class=0)
    assert kept.tolist() == sorted(kept)
    order = np.random.default_rng(1).permutation(40)
    again = few_of(labels[order], draws[order], share=0.3, per_class=0)
    assert sorted(order[again]) == kept.tolist()
    some = np.flatnonzero(labels != 2)
    fewer = some[few_of(labels[some], draws[some], share=0.3, per_class=0)]
    assert fewer.tolist() == [row for row in kept if labels[row] != 2]


def test_only_training_labels_are_kept_back_and_the_recipe_says_so(corpus, tmp_path):
    whole = Finetuning(run_of(corpus, tmp_path))
    few = Finetuning(run_of(corpus, tmp_path, label_share=0.1))
    for part in ("validation", "test"):
        np.testing.assert_array_equal(getattr(whole.fold(1), part), getattr(few.fold(1), part))
    assert few.training_labels(1) == {"emotion": {"happy": 4, "sad": 2, "angry": 1}}
    assert len(few.own_data(1, "train").clips) == 7
    assert few.recipe("scratch")["finetune.label_share"] == 0.1
    assert few.recipe("scratch")["finetune.label_draw"] == 0
    assert "finetune.label_draw" not in whole.recipe("scratch"), "all clips are every draw's"
    assert few.reads(1, test=True)["clips of each part"] == [7, 63, 63]


def test_a_class_that_is_left_without_a_clip_is_refused_with_the_remedy(corpus, tmp_path):
    mood = emotion("low", "high", name="mood")
    assert Finetuning(run_of(corpus, tmp_path, mood)).fold(1)
    with pytest.raises(
        ValueError,
        match=r"finetune\.tasks\[1\]\.classes=\('low', 'high'\): task mood cannot be learned in fold 1 .*: all 6 "
        r"labelled training clips are of one class \(high 6\).*; learn from more labels or others "
        r"\(finetune\.labels_per_class=2, label_draw=0\), prepare",
    ):
        finetune(run_of(corpus, tmp_path, mood, labels_per_class=2))


@pytest.mark.parametrize("select_by", ["emotion/loss", "emotion/ua"])
def test_training_from_few_labels_says_of_how_many_and_is_chosen_by(corpus, tmp_path, capsys, select_by):
    changes = dict(
        labels_per_class=1, label_draw=3, select_by=select_by, num_steps=6, eval_every=2, batch_frames=200,
        compare_from_scratch=False,
    )  # fmt: skip
    run = run_of(corpus, tmp_path, **changes)
    finetune(run)
    said = "3 training clips kept by finetune.labels_per_class=1, label_draw=3 (happy 1, sad 1, angry 1), 63 validation"
    assert said in capsys.readouterr().err
    result = json.loads((tmp_path / "finetune" / "scratch" / "fold1" / "result.json").read_text())
    assert result["training_labels"] == {"emotion": {"happy": 1, "sad": 1, "angry": 1}}
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    values = {r["step"]: r[f"validation/{select_by}"] for r in records if f"validation/{select_by}" in r}
    best = min(values.values()) if select_by == "emotion/loss" else max(values.values())
    assert len(values) >= 3
    assert values[result["step"]] == best == pytest.approx(result[f"validation/{select_by}"])

    other = run_of(corpus, tmp_path, **(changes | {"labels_per_class": 2}))
    for stage in (finetune, evaluate):
        with pytest.raises(ValueError, match=r"another recipe \(finetune\.labels_per_class was 1 and is 2"):
            stage(other)
    evaluation = evaluate(run)
    assert evaluation["folds"][0]["training_labels"] == {"happy": 1, "sad": 1, "angry": 1}
    assert (evaluation["label_share"], evaluation["labels_per_class"], evaluation["label_draw"]) == (1.0, 1, 3)
