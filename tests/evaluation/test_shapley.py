import pytest

from mmpretrain.evaluation.shapley import shapley


def test_shares_add_up_and_what_brings_nothing_has_none():
    value = {frozenset(): 0.25, frozenset("A"): 0.5, frozenset("V"): 0.25, frozenset("AV"): 0.6}
    shares = shapley(value, ["A", "V"])
    assert shares == pytest.approx({"A": (0.25 + 0.35) / 2, "V": (0.0 + 0.1) / 2})
    assert sum(shares.values()) == pytest.approx(0.6 - 0.25)
    three = {frozenset(s): len(set(s) & {"A"}) * 1.0 for s in ("", "A", "V", "T", "AV", "AT", "VT", "AVT")}
    assert shapley(three, ["A", "V", "T"]) == pytest.approx({"A": 1.0, "V": 0.0, "T": 0.0})
