"""What cannot be learned, chosen or validated on the clips there are is said before the first step."""

import numpy as np
import pytest

from mmpretrain.config import CorpusConfig, FinetuneConfig, TaskConfig, emotion
from mmpretrain.data.labels import why_not_learned, why_not_measured
from mmpretrain.downstream.checking import check_folds
from mmpretrain.downstream.finetuning import Finetuning
from mmpretrain.downstream.tested import figures_of_tasks
from mmpretrain.evaluation.metrics import METRICS
from mmpretrain.evaluation.tasks import TASK_METRICS
from mmpretrain.report.tasks import figure_text
from mmpretrain.run.run import Run
from mmpretrain.stages.evaluate import evaluate
from mmpretrain.stages.finetune import finetune
from tests.corpus_fixture import make_clip, write_corpus
from tests.tiny import IMAGE_SIZE, tiny_model, tiny_run

TRAIN = ("happy", "happy", "sad", "sad")


def corpus_of(path, *, train=TRAIN, validation=("happy", "sad"), test=("happy", "sad"), silent=()):
    """Sound of clips with these emotions, each part of a speaker of its own. silent: parts that are pictures alone."""
    clips, splits = [], {"train": train, "validation": validation, "test": test}
    for split, emotions in splits.items():
        for i, word in enumerate(emotions):
            clips.append(
                make_clip(
                    f"{split}{i}", 8, audio=split not in silent, video=split in silent, size=IMAGE_SIZE, split=split,
                    speaker=split, labels={"emotion": word},
                )
            )  # fmt: skip
    return write_corpus(path / "corpus", clips, IMAGE_SIZE, IMAGE_SIZE + 16)


def run_of(path, corpus, *classes, **changes) -> Run:
    finetune = FinetuneConfig(encoder="none", tasks=(emotion(*classes),), **changes)
    config = tiny_run(workdir=str(path / "run"), model=tiny_model("audio"), rounds=(), finetune=finetune)
    config.data.corpora = (CorpusConfig(str(corpus)),)
    return Run(config)


@pytest.mark.parametrize("stage", [finetune, evaluate])
@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            {"train": ("happy",) * 4},
            r"finetune\.tasks\[0\]\.classes=.*fold 1 of official v1: all 4 labelled training clips are of one class "
            r"\(happy 4\), of .*corpus; prepare",
        ),
        ({"test": ("angry", "sad")}, r"no training clip is labelled angry \(there are happy 2, sad 2\)"),
        ({"test": ()}, r"no labelled clip in its test part"),
        ({"silent": ("validation",)}, r"no labelled clip in its validation part .* 2 of its clips \(validation\) "
                                      r"were left out: they have no audio, and model\.modalities=\('audio',\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_is_refused_before_the_first_step(tmp_path, stage, parts, message):
    classes = ("happy", "sad", "angry") if "angry" in parts.get("test", ()) else ("happy", "sad")
    run = run_of(tmp_path, corpus_of(tmp_path, **parts), *classes)
    with pytest.raises(ValueError, match=message):
        stage(run)
    assert not (tmp_path / "run" / "finetune").exists()


def test_every_fold_is_looked_at_before_the_first_is_trained(tmp_path):
    # Who says "angry" is tested in one of the folds, and trained on in the others.
    words = [(i, word) for i in range(3) for word in ("happy", "sad")] + [(2, "angry")]
    clips = [
        make_clip(f"c{n}", 8, video=False, size=IMAGE_SIZE, speaker=f"s{i}", labels={"emotion": word})
        for n, (i, word) in enumerate(words)
    ]
    corpus = write_corpus(tmp_path / "corpus", clips, IMAGE_SIZE, IMAGE_SIZE + 16)
    run = run_of(tmp_path, corpus, "happy", "sad", "angry", protocol="speakers-3")
    trained = [i for i in (1, 2, 3) if _learns(run, i)]
    assert len(trained) == 1
    with pytest.raises(ValueError, match=r"cannot be learned in fold \d of speakers-3 v1: no training clip is"):
        finetune(run)
    assert not (tmp_path / "run" / "finetune").exists()


def _learns(run, fold) -> bool:
    try:
        Finetuning(run).fold(fold)
    except ValueError:
        return False
    return True


def test_what_figures_cannot_tell_is_said(tmp_path, capsys):
    corpus = corpus_of(tmp_path, train=(*TRAIN, "calm"), validation=("happy", "happy"))
    check_folds(Finetuning(run_of(tmp_path, corpus, "happy", "sad")))
    said = capsys.readouterr()
    assert "fold 1: the validation part has no clip labelled sad" in said.out + said.err
    assert "1 clips are left out, labelled calm" in said.out + said.err


def test_a_second_task_without_labels_in_the_test_part_is_said(tmp_path, capsys):
    clips = [
        make_clip(
            f"{split}{i}", 8, video=False, size=IMAGE_SIZE, split=split, speaker=split,
            labels={"emotion": word} | ({"level": float(i)} if split != "test" else {}),
        )
        for split in ("train", "validation", "test") for i, word in enumerate(("happy", "sad"))
    ]  # fmt: skip
    columns = {"emotion": "class", "level": "value"}
    corpus = write_corpus(tmp_path / "corpus", clips, IMAGE_SIZE, IMAGE_SIZE + 16, columns)
    run = run_of(tmp_path, corpus, "happy", "sad")
    run.config.finetune.tasks += (TaskConfig("level", kind="value", range=(0.0, 1.0)),)
    check_folds(Finetuning(run))
    said = capsys.readouterr()
    assert "fold 1: the test part has no label of it, of which its level figures tell nothing" in said.out + said.err


def sleepy_people(path):
    """Sound of six people, who are all along sleepy or not."""
    clips = [
        make_clip(f"c{i}", 8 + i, video=False, size=IMAGE_SIZE, speaker=f"s{i % 6}", labels={"sleepy": "ny"[i % 2]})
        for i in range(12)
    ]
    return write_corpus(path / "corpus", clips, IMAGE_SIZE, IMAGE_SIZE + 16, {"sleepy": "class"})


def sleepy_run(path, metric) -> Run:
    run = run_of(path, sleepy_people(path), "happy", "sad", protocol="speakers-6")
    run.config.finetune.tasks = (TaskConfig("sleepy", kind="binary", classes=("n", "y")),)
    run.config.finetune.select_by = f"sleepy/{metric}"
    return run


def test_a_figure_that_validation_clips_cannot_tell_chooses_no_model(tmp_path):
    run = sleepy_run(tmp_path, "auc")
    with pytest.raises(
        ValueError,
        match=r"select_by='sleepy/auc': the validation part of fold 1 .* has no clip labelled [ny] \(task sl",
    ):
        finetune(run)
    assert not (tmp_path / "run" / "finetune").exists()
    run.config.finetune.selection = "last"
    assert len(Finetuning(run).fold(1).validation) == 2, "nothing is chosen by it"


def test_a_figure_that_no_fold_tells_has_no_mean(tmp_path):
    finetuning = Finetuning(sleepy_run(tmp_path, "loss"))
    said = [{"sleepy": finetuning.labels["sleepy"][finetuning.fold(k).test][:, None] - 0.5} for k in finetuning.folds]
    figures = figures_of_tasks(finetuning, said)
    assert figures["sleepy/auc"]["folds"] == [None] * 6
    assert (figures["sleepy/auc"]["mean"], figures["sleepy/auc"]["pooled"]) == (None, 1.0)
    assert figure_text(figures["sleepy/auc"]).startswith("1.000 [")
    assert figures["sleepy/ua"]["mean"] == 1.0


def test_batches_that_hold_too_few_clips_are_told_by_the_field_of_fine_tuning(tmp_path):
    run = run_of(tmp_path, corpus_of(tmp_path), "happy", "sad", batch_frames=10)
    with pytest.raises(ValueError, match=r"^finetune\.batch_frames=10 does not hold 8 clips \(data\.batch_multiple\)"):
        Finetuning(run).training("scratch", 1)


@pytest.mark.parametrize(
    ("kind", "classes", "labels", "untold"),
    [
        ("binary", ("a", "b"), [1, 1], {"auc"}),
        ("binary", ("a", "b"), [1, 0], set()),
        ("classes", ("a", "b"), [[1, 0], [1, 0]], {"macro_f1", "auc"}),
        ("classes", ("a", "b"), [[1, 0], [1, 1]], set()),
        ("votes", ("a", "b"), [[0.5, 0.5], [0.5, 0.5]], set(METRICS)),
        ("votes", ("a", "b"), [[0.5, 0.5], [1.0, 0.0]], set()),
        ("embedding", ("a", "b"), [0, 1], {"loss", "map", "nearest"}),
        ("embedding", ("a", "b"), [0, 0], set()),
    ],
)  # fmt: skip
def test_what_labels_do_not_tell_is_known_before_anything_is_said(kind, classes, labels, untold):
    task, labels, of_kind = TaskConfig("task", kind=kind, classes=classes), np.array(labels), TASK_METRICS[kind]
    said = np.linspace(-1, 1, 4, dtype=np.float32).reshape(2, 2)[:, : 1 if kind == "binary" else 2]
    assert set(of_kind.untold(labels)) == of_kind.better.keys() - of_kind.of(labels, said, task).keys() == untold


@pytest.mark.parametrize(
    ("kind", "classes", "labels", "learned", "measured"),
    [
        ("class", ("a", "b"), [0, 1, -1], "", ""),
        ("class", ("a", "b"), [-1, -1], "none of the 2 training clips has a label of it", "has no label of it"),
        ("class", ("a", "b"), [1, 1, -1], "all 2 labelled training clips are of one class (b 2)", "labelled a"),
        ("class", ("a", "b", "c"), [0, 2], "no training clip is labelled b (there are a 1, c 1)", "labelled b"),
        ("classes", ("a", "b"), [[1, 0], [0, 1], [-1, -1]], "", ""),
        ("classes", ("a", "b"), [[1, 0], [0, 0]], "no training clip is labelled b (there are a 1)", "labelled b"),
        ("classes", ("a", "b"), [[1, 0], [1, 1]], "all 2 labelled training clips are labelled a", ""),
        ("value", (), [0.5, 0.25, np.nan], "", ""),
        ("value", (), [0.5, 0.5, np.nan], "labels of all 2 labelled training clips are equal (0.5)", "equal labels"),
        ("value", (), [np.nan], "none of the 1 training clips has a label of it", "has no label of it"),
        ("values", (), [[1.0, np.nan], [2.0, 1.0]], "", ""),
        ("values", (), [[1.0, np.nan], [1.0, 1.0]], "are equal (1)", "equal labels"),
        ("tokens", (), [[3, 4], [-1, -1]], "", ""),
    ],
)
def test_labels_of_every_kind(kind, classes, labels, learned, measured):
    task, labels = TaskConfig("task", kind=kind, classes=classes), np.array(labels)
    for found, expected in ((why_not_learned(labels, task), learned), (why_not_measured(labels, task), measured)):
        assert expected in found
        assert bool(found) == bool(expected)


def test_validation_without_the_modality_is_called_validation(tmp_path, capsys):
    run = run_of(tmp_path, corpus_of(tmp_path, silent=("validation",)), "happy", "sad")
    with pytest.raises(ValueError, match=r"none of the 2 validation clips of .* has audio; prepare validation clips"):
        _ = run.clips
    run = run_of(tmp_path, run.config.data.corpora[0].path, "happy", "sad")
    run.config.model = tiny_model("audio", "video")
    assert [len(table) for table in run.clips] == [4, 2]
    said = capsys.readouterr()
    assert "none of the 2 validation clips of" in said.out + said.err
    assert "none of the 4 training clips of" in said.out + said.err
    training = run_of(tmp_path, run.config.data.corpora[0].path, "happy", "sad")
    training.config.model = tiny_model("video")
    with pytest.raises(ValueError, match=r"none of the 4 training clips of .* has video"):
        _ = training.clips
