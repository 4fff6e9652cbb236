"""Heads that hear a text: what is not there has no say; modalities are left out, but never all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpretrain.models.text_heads import TEXT_HEADS, text_of
from mmpretrain.objectives.supervised import left_of
from mmpretrain.randomness import keys_of
from tests.tiny import initial, tiny_model

RANDOM = np.random.default_rng(0)
DIM, B, T, L = 6, 4, 5, 3
LAYERS = jnp.asarray(RANDOM.normal(size=(3, B, T, 16)), jnp.float32)
VALID = jnp.arange(T) < jnp.array([[5], [3], [4], [5]])


@pytest.mark.parametrize("fusion", TEXT_HEADS)
def test_what_is_not_there_has_no_say(fusion):
    head = nnx.merge(*initial(lambda rngs: TEXT_HEADS[fusion](tiny_model(), 2, "mean", DIM, rngs=rngs)))
    tokens = RANDOM.normal(size=(B, L, DIM)).astype(np.float32)
    tokens[1, 2] = 0  # a text of two tokens
    says = jax.jit(lambda layers, tokens, texts, frames: head(layers, VALID, None, text_of(tokens, texts, frames)))

    def said(layers=LAYERS, tokens=tokens, texts=(1, 1, 0, 1), frames=(1, 1, 1, 0)):
        return np.asarray(says(layers, tokens, np.array(texts, bool), np.array(frames, bool)))

    usual = said()
    assert usual.shape == (B, 2)
    other_text = said(tokens=np.where(tokens, RANDOM.normal(size=tokens.shape), 0).astype(np.float32))
    other_frames = said(layers=jnp.asarray(RANDOM.normal(size=LAYERS.shape), jnp.float32))
    moved = [np.abs(x - usual).max(1) > 1e-5 for x in (other_text, other_frames)]
    assert moved[0].tolist() == [True, True, False, True], "clip 2 has no text"
    assert moved[1].tolist() == [True, True, True, False], "clip 3 has neither sound nor picture"
    longer = np.pad(tokens, ((0, 0), (0, 2), (0, 0)))
    np.testing.assert_allclose(said(tokens=longer), usual, atol=1e-5, err_msg="rows of zeros are no tokens")
    nothing = said(texts=(0,) * 4, frames=(0,) * 4)
    np.testing.assert_allclose(nothing, nothing[:1].repeat(B, 0), atol=1e-6)


def test_the_late_head_is_the_mean_of_both_and_the_gate_is_open_for_the_one_that_is_there():
    head = nnx.merge(*initial(lambda rngs: TEXT_HEADS["late"](tiny_model(), 2, "mean", DIM, rngs=rngs)))
    tokens, both = RANDOM.normal(size=(B, L, DIM)).astype(np.float32), np.ones(B, bool)
    texts = [text_of(tokens, there, frames) for there, frames in ((both, both), (both, ~both), (~both, both))]
    together, read, heard = (np.asarray(head(LAYERS, VALID, None, text)) for text in texts)
    np.testing.assert_allclose(together, (read + heard) / 2, atol=1e-5)
    np.testing.assert_allclose(heard, head.frames(LAYERS, VALID, None), atol=1e-5)


def test_modalities_are_left_out_but_one_that_is_there_stays():
    present = {"audio": np.arange(400) % 2 == 0, "text": np.arange(400) % 4 > 0}
    keys = keys_of(jax.random.key(0), np.arange(400, dtype=np.uint32))
    left = {name: np.asarray(kept) & present[name] for name, kept in left_of(present, keys, 0.4).items()}
    there = present["audio"] | present["text"]
    assert (left["audio"] | left["text"])[there].all()
    both = present["audio"] & present["text"]
    assert 0.55 < left["audio"][both].mean() < 0.8, "0.6, and half of 0.4 squared"
    assert left["audio"][present["audio"] & ~present["text"]].all()
    everything = left_of(present, keys, 0.0)
    assert all(np.asarray(everything[name])[there].all() for name, there in present.items())
