"""The state that is kept as the best is one of the run that is told of it."""

import jax.numpy as jnp
import pytest

from mmpretrain.train.best import Best, BestBy

BY = BestBy("validation/ua", "higher")


@pytest.fixture
def offer(tmp_path):
    """offer(values, known): a run from a checkpoint that says `known` offers its states, by step of these values.

    Returns what its next checkpoint says, and the step and value of the state that is kept.
    """

    def run(values: dict[int, float], known: dict | None = None):
        best = Best(tmp_path, BY)
        if known is not None:
            best.resume(known)
        for step, value in values.items():
            best.offer(step, {"weights": jnp.full(2, step)}, {BY.metric: value})
        said, (state, of_best) = best.known(), best.restore({"weights": jnp.zeros(2, int)})
        best.close()
        assert state["weights"].tolist() == [of_best["step"]] * 2
        return said, (of_best["step"], of_best[BY.metric])

    return run


def test_a_run_that_goes_on_the_same_keeps_the_same_state(offer):
    known, _ = offer({1: 0.5, 2: 0.4})
    assert offer({3: 0.6, 4: 0.3}, known)[1] == (3, 0.6)  # and is cut off, and begins again after step 2
    assert offer({3: 0.6, 4: 0.3}, known)[1] == (3, 0.6)
    assert offer({5: 0.55}, offer({3: 0.6, 4: 0.3}, known)[0])[1] == (3, 0.6)


def test_a_state_of_steps_that_came_out_otherwise_is_not_kept(offer):
    known, _ = offer({1: 0.5, 2: 0.4})
    offer({3: 0.9}, known)  # is cut off after it, and goes on after step 2 at another rate
    assert offer({3: 0.45, 4: 0.48}, known)[1] == (4, 0.48)


def test_a_figure_that_was_no_number_is_named(offer):
    with pytest.raises(ValueError, match="validation/ua was a number at no evaluation, so that no state is the best"):
        offer({1: float("nan"), 2: float("nan")})
