"""`mmpretrain compare`: two runs on the clips that both were tested on, from what they left in their folders."""

import dataclasses
import json

import numpy as np
import pytest

from mmpretrain.__main__ import main
from mmpretrain.downstream.predictions import table_name, write_answers
from mmpretrain.evaluation.comparison import Answers, compare
from mmpretrain.run.sealed import write_sealed

CLASSES = ("true", "false", "it, depends")  # words that the tables hold anyway


def answers(fold, right_share, seed, first=0, count=60, labels=CLASSES) -> Answers:
    """Of a fold with six speakers of its own."""
    rows = np.arange(first, first + count)
    known = rows % 3
    right = np.random.default_rng(seed).random(count) < right_share
    ids, speakers = ([f"{kind}{fold}-{row % of}" for row in rows] for kind, of in (("clip", 10_000), ("speaker", 6)))
    return Answers(labels, tuple(ids), tuple(speakers), known, np.where(right, known, (known + 1) % 3))


def store(folder, of_variants, **changes):
    """A run that is evaluated. of_variants: by classifier and fold what it answered."""
    for variant, of_folds in of_variants.items():
        for fold, said in of_folds.items():
            write_answers(folder / "evaluation" / table_name(variant, fold), said)
    folds = next(iter(of_variants.values()))
    result = {"task": "truth", "protocol": "speakers-3 v1", "selection": "val", "classes": list(CLASSES)}
    result |= {"folds": [{"fold": fold} for fold in folds], "wall_time_sec": 1.0, **{name: {} for name in of_variants}}
    write_sealed(folder / "evaluation" / "result.json", result | changes)
    return folder


def test_two_runs_are_compared_in_each_fold_and_in_all(tmp_path, capsys):
    good, bad = ({fold: answers(fold, share, fold + 10 * (share < 0.5)) for fold in (1, 2)} for share in (0.8, 0.4))
    one = store(tmp_path / "one", {"pretrained": good, "scratch": bad})
    other = store(tmp_path / "other", {"pretrained": bad, "scratch": bad})
    main(["compare", str(one), str(other), f"--json={tmp_path / 'found' / 'compared.json'}"])
    text = " ".join(capsys.readouterr().out.split())
    found = json.loads((tmp_path / "found" / "compared.json").read_text())
    trained, scratch = found["pairs"]
    expected = compare(*(Answers.joined(list(of_folds.values())) for of_folds in (good, bad)))
    assert trained["pooled"] == expected
    assert trained["folds"][1] == {"fold": 2, **compare(good[2], bad[2])}
    assert expected["ua"]["low"] > 0
    assert "ours, pretrained (first), is better on clips like these" in text
    assert scratch["pooled"]["other_answers"] == 0
    assert "The same answers on all 120 clips." in text
    assert "fold 2 pretrained pretrained +" in text
    assert "left out" not in text


def test_what_the_runs_have_seen_and_learned_from_is_said(tmp_path, capsys):
    said, seen = {1: answers(1, 0.7, 1)}, "3 of 60 clips, 1 of 6 speakers; 3 clips with their label"
    one = store(tmp_path / "one", {"scratch": said}, unlabelled_test_seen="no", label_share=0.1)
    other = store(tmp_path / "other", {"scratch": said}, scratch={"unlabelled_test_seen": seen}, label_share=1.0)
    main(["compare", str(one), str(other)])
    text = " ".join(capsys.readouterr().out.split())
    assert "the first from label_share 0.1, labels_per_class 0; the second from label_share 1, labels_per_class" in text
    assert f"unlabelled_test_seen by ours, from scratch (second): {seen}" in text
    assert "seen by ours, from scratch (first)" not in text
    main(["compare", str(one), str(one)])
    text = capsys.readouterr().out
    assert "learned from" not in text
    assert "unlabelled_test_seen" not in text


def test_only_clips_that_both_tested_count(tmp_path, capsys):
    one = store(tmp_path / "one", {"pretrained": {1: answers(1, 0.7, 1), 2: answers(2, 0.7, 2)}})
    other = store(tmp_path / "other", {"scratch": {1: answers(1, 0.6, 3, first=20)}})
    main(["compare", str(one), str(other)])
    text = " ".join(capsys.readouterr().out.split())
    assert "40 clips, resampled: 6 speakers" in text
    assert "ours, pretrained (first), against ours, from scratch (second): UA" in text
    assert "left out: 80 clips that the first alone was tested on, and 20 of the second" in text


def test_clips_of_a_corpus_are_found_again_in_a_mixture_which_names_them_by_it(tmp_path, capsys):
    alone = answers(1, 0.7, 1)
    mixed = dataclasses.replace(alone, clip_ids=tuple(f"faces/{name}" for name in alone.clip_ids))
    more = dataclasses.replace(answers(1, 0.7, 2), clip_ids=tuple(f"sound/{name}" for name in alone.clip_ids))
    one = store(tmp_path / "one", {"scratch": {1: Answers.joined([mixed, more])}}, corpus=None)
    other = store(tmp_path / "other", {"scratch": {1: alone}}, corpus="faces")
    main(["compare", str(one), str(other)])
    text = capsys.readouterr().out
    assert "The same answers on all 60 clips." in text
    assert "left out: 60 clips that the first alone was tested on, and 0 of the second" in text


def test_what_does_not_compare_is_said(tmp_path, capsys):
    def refusal(*arguments) -> str:
        with pytest.raises(SystemExit) as ended:
            main(["compare", *map(str, arguments)])
        assert ended.value.code == 2
        return " ".join(capsys.readouterr().err.split())

    one = store(tmp_path / "one", {"pretrained": {1: answers(1, 0.7, 1)}})
    again = store(tmp_path / "again", {"pretrained": {1: answers(1, 0.7, 1)}}, protocol="official v1")
    assert "their protocol is 'speakers-3 v1' and 'official v1'" in refusal(one, again)
    moved = answers(1, 0.7, 1)
    moved = Answers(moved.classes, moved.clip_ids, moved.speakers, (moved.labels_N + 1) % 3, moved.predictions_N)
    labels = store(tmp_path / "labels", {"pretrained": {1: moved}})
    assert "do not compare: clip clip1-0 has the label 'true' for one and 'false' for the other" in refusal(one, labels)
    elsewhere = store(tmp_path / "elsewhere", {"pretrained": {1: answers(7, 0.7, 1)}})
    assert "no clip was tested by both" in refusal(one, elsewhere)
    assert "there is no such folder" in refusal(one, tmp_path / "nowhere")
    assert f"--json={one} is a folder; give the name of a file" in refusal(one, one, f"--json={one}")
    assert "the command is `mmpretrain compare RUN_A RUN_B [--json=FILE] [--crossval]`" in refusal(one)
    (tmp_path / "empty").mkdir()
    assert "stage evaluation of" in refusal(one, tmp_path / "empty")
    (tmp_path / "empty" / "results.json").write_text('{"classifiers": {"frozen": {}}}')
    said = refusal(tmp_path / "empty", tmp_path / "empty", "--crossval")
    assert "results.json is not as crossval left it (KeyError: 'tables'); run `mmpretrain crossval` again" in said
    table = again / "evaluation" / "pretrained-fold1.csv"
    store(tmp_path / "again", {"pretrained": {1: answers(1, 0.7, 1)}})
    table.write_text(table.read_text().replace("clip1-7,", "clip1-8000,"))
    assert f"{table} is damaged" in (said := refusal(one, again))
    assert "run `mmpretrain evaluate` again" in said
