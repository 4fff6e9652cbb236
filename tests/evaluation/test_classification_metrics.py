import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from mmpretrain.evaluation.metrics import ClassificationResult, classification_metrics, pooled


def test_figures_equal_those_worked_out_by_hand():
    # angry: 3 clips, 2 right; happy: 1 clip, right; sad: 4 clips, 1 right.
    result = classification_metrics([0, 0, 0, 1, 2, 2, 2, 2], [0, 0, 1, 1, 2, 0, 0, 1], ("angry", "happy", "sad"))
    assert result.confusion.tolist() == [[2, 1, 0], [0, 1, 0], [2, 1, 1]]
    assert result.support.tolist() == [3, 1, 4]
    assert result.ua == pytest.approx((2 / 3 + 1 + 1 / 4) / 3)
    assert result.wa == pytest.approx(4 / 8)
    f1 = [2 * 2 / (4 + 3), 2 * 1 / (3 + 1), 2 * 1 / (1 + 4)]  # twice the hits over predicted plus true
    assert result.wf1 == pytest.approx((3 * f1[0] + 1 * f1[1] + 4 * f1[2]) / 8)
    assert result.macro_f1 == pytest.approx(sum(f1) / 3)
    assert result.chance_ua == pytest.approx(1 / 3)
    assert result.majority_wa == pytest.approx(1 / 2)


def test_a_class_that_does_not_occur_counts_in_no_mean():
    result = classification_metrics([0, 0, 2], [0, 1, 2], ("angry", "calm", "happy", "sad"))
    assert result.ua == pytest.approx((1 / 2 + 1) / 2)
    assert result.macro_f1 == pytest.approx((2 / 3 + 1) / 2)
    assert result.chance_ua == pytest.approx(1 / 2)
    assert result.confusion.shape == (4, 4)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
def test_figures_equal_those_of_scikit_learn_on_the_clips(pairs):
    labels, predictions = np.array(pairs).T
    result = classification_metrics(labels, predictions, tuple("abcd"))
    occurring = np.unique(labels)
    assert result.wa == pytest.approx(accuracy_score(labels, predictions))
    for metric, average in (("wf1", "weighted"), ("macro_f1", "macro")):
        expected = f1_score(labels, predictions, labels=occurring, average=average, zero_division=0)
        assert getattr(result, metric) == pytest.approx(expected)
    if len(occurring) > 1 and set(predictions) <= set(occurring):  # scikit-learn warns about the other cases
        assert result.ua == pytest.approx(balanced_accuracy_score(labels, predictions))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=60), st.integers(1, 59))
def test_pooling_parts_equals_the_whole(pairs, cut):
    labels, predictions = np.array(pairs).T
    cut = min(cut, len(pairs) - 1)
    parts = [classification_metrics(labels[s], predictions[s], tuple("abc")) for s in (slice(cut), slice(cut, None))]
    whole = classification_metrics(labels, predictions, tuple("abc"))
    assert pooled(parts).as_dict() == whole.as_dict()


def test_result_goes_through_json():
    result = classification_metrics([0, 1, 1], [0, 1, 0], ("angry", "sad"))
    again = json.loads(json.dumps(result.as_dict()))
    assert again["classes"] == ["angry", "sad"]
    assert again["confusion"] == [[1, 0], [1, 1]]
    assert ClassificationResult.of(again["confusion"], again["classes"]).as_dict() == result.as_dict()


@pytest.mark.parametrize(
    ("labels", "predictions", "message"),
    [
        ([], [], "no clip to evaluate"),
        ([0, 1], [0], "lists of one length"),
        ([0, -1], [0, 1], "labels hold class ids from -1 to 0, but there are 2 classes"),
        ([0, 1], [0, 2], "predictions hold class ids from 0 to 2"),
    ],
)
def test_impossible_input_is_refused(labels, predictions, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(np.array(labels, int), np.array(predictions, int), ("angry", "sad"))


def test_pooling_refuses_other_classes_and_nothing():
    angry_sad = classification_metrics([0], [0], ("angry", "sad"))
    angry_calm = classification_metrics([0], [0], ("angry", "calm"))
    for results in ([], [angry_sad, angry_calm]):
        with pytest.raises(ValueError, match="all over the same classes"):
            pooled(results)
