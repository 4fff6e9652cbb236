"""Work in flight: the order of things begun and looked at."""

import pytest

from mmpretrain.parallel.flight import one_behind


def test_the_next_is_begun_before_one_is_looked_at():
    done = []

    def begin():
        for i in range(3):
            done.append(f"begin {i}")
            yield i

    for i in one_behind(begin()):
        done.append(f"look {i}")
    assert done == ["begin 0", "begin 1", "look 0", "begin 2", "look 1", "look 2"]
    assert list(one_behind([])) == []
    assert list(one_behind([None])) == [None]


def test_what_was_begun_before_an_error_is_not_lost():
    def begin():
        yield 0
        yield 1
        raise ValueError("the third")

    seen = []
    with pytest.raises(ValueError, match="the third"):
        list(map(seen.append, one_behind(begin())))
    assert seen == [0, 1]
