"""The video of a prediction: what stands on it can be read."""

import itertools

import numpy as np
import pytest

from mmpretrain.predict.reading import Reading
from mmpretrain.predict.render import LABEL_PX, MAX_PEOPLE, NAME_PX, _board, _Label, _tops, ascii_of
from mmpretrain.predict.results import Moments, Person


@pytest.mark.parametrize("seed", range(20))
def test_no_label_covers_another(seed):
    random = np.random.default_rng(seed)
    labels = [_Label("", (0, 0, 0), int(x), int(y), 120) for x, y in random.integers(-20, 300, (10, 2))]
    tops = _tops(labels, 300)
    assert tops[0] == min(max(labels[0].top, 0), 300 - LABEL_PX), "the first stands where it should"
    for (one, a), (other, b) in itertools.combinations(zip(labels, tops, strict=True), 2):
        assert abs(a - b) >= LABEL_PX or abs(one.left - other.left) >= 120
    assert all(0 <= top <= 300 - LABEL_PX for top in tops)


def test_everybody_has_a_strip_or_is_counted():
    def person(number: int, seconds: int) -> Person:
        at = np.arange(float(seconds))
        return Person(f"person {number}", Moments(at, at + 1, np.full((seconds, 2), 0.5), ("video",) * seconds, at))

    reading = Reading("light", "class", ("dark", "bright"))

    def strips(people: list[Person]) -> int:
        board, top = _board(people, reading, 400, 9.0)
        return int((np.diff((board[top:, NAME_PX + 2] == reading.colours[0]).all(-1).astype(int)) == 1).sum())

    assert [strips([person(k, 9) for k in range(count)]) for count in (1, 4, 10)] == [1, 4, 10]
    many = [person(k, 9 if k % 2 else 1) for k in range(2 * MAX_PEOPLE)]
    assert strips(many) == MAX_PEOPLE
    assert _board(many, reading, 400, 9.0)[0].shape[0] > _board(many[:MAX_PEOPLE], reading, 400, 9.0)[0].shape[0]


def test_words_of_other_languages_are_written_as_far_as_the_font_can():
    assert ascii_of("h\u00e4mm\u00e4stynyt 40 %") == "hammastynyt 40 %"
    assert ascii_of("d\u00e9\u00e7u ?") == "decu ?"
    assert ascii_of("\u6012") == "?"
