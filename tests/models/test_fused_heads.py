"""Heads that hear more than frames: what is not there has no say; modalities are left out, but never all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mmpretrain.config import FinetuneConfig, TaskConfig
from mmpretrain.models.fused_heads import FUSED_HEADS
from mmpretrain.models.streams import Beside, Heard, stream_of
from mmpretrain.objectives.supervised import Supervised, left_of
from mmpretrain.randomness import keys_of
from tests.tiny import initial, random_batch, tiny_model, with_inputs

RANDOM = np.random.default_rng(0)
BESIDE, B, T, L = (Beside("text", 6), Beside("hands", 4, of_frames=True)), 4, 5, 3
LAYERS = jnp.asarray(RANDOM.normal(size=(3, B, T, 16)), jnp.float32)
VALID = jnp.arange(T) < jnp.array([[5], [3], [4], [5]])
HANDS = RANDOM.normal(size=(B, T, 4)).astype(np.float32)


@pytest.mark.parametrize("fusion", FUSED_HEADS)
def test_what_is_not_there_has_no_say(fusion):
    head = nnx.merge(*initial(lambda rngs: FUSED_HEADS[fusion](tiny_model(), 2, "mean", BESIDE, rngs=rngs)))
    tokens = RANDOM.normal(size=(B, L, 6)).astype(np.float32)
    tokens[1, 2] = 0  # a text of two tokens

    @jax.jit
    def says(layers, tokens, hands, texts, frames):
        beside = {"text": stream_of(tokens, texts), "hands": stream_of(hands, texts)}
        answer = head(layers, VALID, None, Heard(beside, {"audio": frames, "video": frames & False}))
        return answer if isinstance(answer, tuple) else (answer, {})

    def said(layers=LAYERS, tokens=tokens, hands=HANDS, texts=(1, 1, 0, 1), frames=(1, 1, 1, 0)):
        answer, aside = says(layers, tokens, hands, np.array(texts, bool), np.array(frames, bool))
        if "gate" in aside:
            there = np.stack([frames, texts, texts], 1) > 0
            np.testing.assert_array_equal(np.asarray(aside["gate"]) > 0, there)
            np.testing.assert_allclose(np.asarray(aside["gate"]).sum(1), there.any(1), atol=1e-6)
        return np.asarray(answer)

    usual = said()
    assert usual.shape == (B, 2)
    other_text = said(tokens=np.where(tokens, RANDOM.normal(size=tokens.shape), 0).astype(np.float32))
    other_hands = said(hands=RANDOM.normal(size=HANDS.shape).astype(np.float32))
    other_frames = said(layers=jnp.asarray(RANDOM.normal(size=LAYERS.shape), jnp.float32))
    moved = [np.abs(x - usual).max(1) > 1e-5 for x in (other_text, other_hands, other_frames)]
    assert moved[0].tolist() == moved[1].tolist() == [True, True, False, True], "clip 2 has neither text nor hands"
    assert moved[2].tolist() == [True, True, True, False], "clip 3 has neither sound nor picture"
    longer = np.pad(tokens, ((0, 0), (0, 2), (0, 0)))
    np.testing.assert_allclose(said(tokens=longer), usual, atol=1e-5, err_msg="rows of zeros are no tokens")
    nothing = said(texts=(0,) * 4, frames=(0,) * 4)
    np.testing.assert_allclose(nothing, nothing[:1].repeat(B, 0), atol=1e-6)


@pytest.mark.parametrize("fusion", ["gated", "intermediate"])
def test_sound_and_picture_meet_each_through_the_encoder_alone(fusion):
    task = TaskConfig("level", kind="ordinal", classes=("a", "b", "c"))
    objective = Supervised(tiny_model("audio", "video"), FinetuneConfig(tasks=(task,), dropout=0.0, fusion=fusion))
    model, there = nnx.merge(*initial(objective.make_model)), {"audio": (1, 1, 0), "video": (1, 0, 1)}
    batch = random_batch((9, 9, 6), model=objective.model, present=there)
    graphdef, _ = nnx.split(model)

    @jax.jit
    def says(state, batch, audio, video):
        return objective.outputs(nnx.merge(graphdef, state, copy=True), batch, shown={"audio": audio, "video": video})

    def said(inputs=(), audio=True, video=True):
        given = with_inputs(batch, **dict(inputs))
        outputs = says(nnx.state(model), given, np.array(audio, bool), np.array(video, bool))
        return {name: np.asarray(x) for name, x in outputs.items()}

    usual = said()
    if fusion == "gated":
        np.testing.assert_array_equal(usual["level/gate"] > 0, np.transpose(list(there.values())) > 0)
    for name in there:
        other = said({name: RANDOM.permuted(batch.inputs[name], axis=1)})
        moved = np.abs(other["level"] - usual["level"]).max(1) > 1e-5
        assert moved.tolist() == [has > 0 for has in there[name]]
    np.testing.assert_allclose(said(video=False)["level"][1], usual["level"][1], atol=1e-6, err_msg="it has none")
    if fusion == "intermediate":  # while blocks hear nothing of others it adds up what it makes of each
        for path, x in nnx.to_flat_state(nnx.state(model.heads)):
            if "blocks" in path and {"out", "mlp_out"} & {*path}:
                x[...] = jnp.zeros_like(x[...])
        both, sound, picture, none = (
            said(audio=audio, video=video)["level"] for audio, video in ((1, 1), (1, 0), (0, 1), (0, 0))
        )
        np.testing.assert_allclose(both + none, sound + picture, atol=1e-5)


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
