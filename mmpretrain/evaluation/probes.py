"""Named, versioned probes of frozen encoders, as the benchmarks that they are called after train them.

Each says which features of a clip it reads, the head, the optimizer, how long it learns and on which clips it chooses.
None is ever chosen on test clips, whatever the benchmark's own example does. A changed rule is a new version.

Dims: N clips, L layers, T frames, D of a layer, H of the head, C classes, B of a batch.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmpretrain.randomness import generator, keys_of, named, seed_key

CHOICES = 20  # times that a probe is looked at on its validation clips


class Features(NamedTuple):
    """layers_NLD: every layer's mean over the frames of each clip; frames_NTD: the last layer, 0 in padding, float16;
    valid_NT: bool."""

    layers_NLD: np.ndarray
    frames_NTD: np.ndarray
    valid_NT: np.ndarray

    def take(self, rows: np.ndarray) -> Features:
        return Features(*(x[rows] for x in self))


@dataclasses.dataclass(frozen=True)
class Probe:
    """reads: "layers", a learned softmax-weighted sum of the means of all layers; "last", the mean of the last layer;
    "frames", the last layer's frames, which go through the hidden layer and a ReLU before their mean.

    hidden: widths of the head; after all but a linear projection ("layers") comes a ReLU. dropout: of what is read.
    steps, or epochs where it is 0. validation: "fifth", a random fifth of all clips that are not tested, as the
    benchmark does, whoever speaks in them; "fold", the validation part of the protocol.
    """

    name: str
    version: int
    about: str
    reads: str
    hidden: tuple[int, ...]
    optimizer: str
    rate: float
    batch: int
    steps: int = 0
    epochs: int = 0
    clip_norm: float = 0.0
    weight_decay: float = 0.0
    dropout: float = 0.0
    validation: str = "fifth"

    @property
    def title(self) -> str:
        return f"{self.name} v{self.version}"

    def num_steps(self, clips: int, shorter: int = 1) -> int:
        """Of learning from so many clips, or one in `shorter` of them."""
        return max(1, (self.steps or self.epochs * -(-clips // self.batch)) // shorter)


_PROBES = (
    Probe(
        "probe-superb", 1, "SUPERB's emotion recognition: a linear projection to 256, mean over frames, linear",
        "layers", (256,), "adam", 1e-4, 32, steps=30_000, clip_norm=1.0,
    ),
    Probe(
        "probe-avsuperb", 1, "AV-SUPERB's: mean over the frames of the clip, linear",
        "layers", (), "adam", 1e-3, 32, steps=50_000, clip_norm=1.0,
    ),
    Probe(
        "probe-emobox", 1, "EmoBox's: linear to 256, ReLU, mean over frames, linear",
        "frames", (256,), "warm_adam", 1e-4, 32, epochs=20, validation="fold",
    ),
    Probe(
        "probe-emotion2vec", 1, "emotion2vec's: linear to 256, ReLU, mean over frames, linear; a cyclic rate",
        "frames", (256,), "cyclic_rmsprop", 1e-3, 128, epochs=100,
    ),
    Probe(
        "probe-merbench", 1, "MERBench's: three layers with dropout in front; of its 50 random settings the middle one",
        "last", (128, 128, 128), "adam", 1e-3, 32, epochs=100, weight_decay=1e-5, dropout=0.3, validation="fold",
    ),
)  # fmt: skip
PROBES = {probe.name: probe for probe in _PROBES}


def get_probe(name: str) -> Probe:
    """The probe of that name. Raises ValueError."""
    if name not in PROBES:
        raise ValueError(f"unknown probe `{name}`; known are {', '.join(PROBES)}")
    return PROBES[name]


class Fitted(NamedTuple):
    """probabilities_NC: of the clips that were asked about. step: the chosen one, of num_steps. ua: on validation."""

    probabilities_NC: np.ndarray
    step: int
    num_steps: int
    validation_wa: float


def fit_probe(
    probe: Probe, features: Features, labels_N: np.ndarray, train: np.ndarray, validation: np.ndarray,
    asked: np.ndarray, num_classes: int, *, seed: int = 0, shorter: int = 1,
) -> Fitted:  # fmt: skip
    """Trains on the rows `train`, keeps the state with the highest accuracy (WA) on `validation`, answers `asked`.

    labels_N: int class ids, read at `train` and `validation` alone. shorter: one in so many steps, for a try.
    """
    num_steps = probe.num_steps(len(train), shorter)
    every = -(-num_steps // CHOICES)
    tx, params = _optimizer(probe, num_steps), _initial(probe, features, num_classes, seed)
    state, best = tx.init(params), (-1.0, 0, params)
    learn, look = _programs(probe, num_steps)
    inputs = jax.tree.map(jnp.asarray, _read(probe, features.take(train)))
    held, labels = jax.tree.map(jnp.asarray, _read(probe, features.take(validation))), jnp.asarray(labels_N[train])
    drawn, dropped = generator(seed, "probe/batches", len(train)), named(seed_key(seed), "probe/dropout")
    order = np.concatenate([drawn.permutation(len(train)) for _ in range(-(-num_steps * probe.batch // len(train)))])
    for first in range(0, num_steps, every):
        steps = min(every, num_steps - first)
        rows = order[first * probe.batch : (first + steps) * probe.batch].reshape(steps, -1)
        keys = keys_of(dropped, jnp.arange(first, first + steps))
        params, state = learn(params, state, inputs, labels, jnp.asarray(rows), keys)
        wa = float((np.asarray(look(params, held)).argmax(-1) == labels_N[validation]).mean())
        if wa > best[0]:
            best = (wa, first + steps, params)
    probabilities = jax.nn.softmax(look(best[2], _read(probe, features.take(asked))))
    return Fitted(np.asarray(probabilities, np.float64), best[1], num_steps, best[0])


def _read(probe: Probe, features: Features) -> Any:
    if probe.reads == "frames":
        return features.frames_NTD, features.valid_NT
    return features.layers_NLD if probe.reads == "layers" else features.layers_NLD[:, -1]


def _initial(probe: Probe, features: Features, num_classes: int, seed: int) -> dict[str, Any]:
    """Uniform within 1 / sqrt(inputs), as PyTorch's linear layers, which all five benchmarks use."""
    random, sizes = generator(seed, "probe/weights"), [features.layers_NLD.shape[-1], *probe.hidden, num_classes]
    made: dict[str, Any] = {"linear": []}
    for inputs, outputs in itertools.pairwise(sizes):
        shapes = ((inputs, outputs), (outputs,))
        made["linear"].append(
            tuple(jnp.asarray(random.uniform(-1, 1, shape) / inputs**0.5, jnp.float32) for shape in shapes)
        )
    if probe.reads == "layers":
        made["mix"] = jnp.zeros(features.layers_NLD.shape[1])
    return made


def _logits(probe: Probe, params: dict[str, Any], inputs: Any, key: jax.Array | None) -> jax.Array:
    if probe.reads == "frames":
        frames_BTD, valid_BT = inputs
        (kernel, bias), *rest = params["linear"]
        hidden_BTH = jax.nn.relu(frames_BTD.astype(jnp.float32) @ kernel + bias) * valid_BT[..., None]
        x_BH = hidden_BTH.sum(1) / jnp.maximum(valid_BT.sum(1), 1)[:, None]
    elif probe.reads == "layers":
        x_BH, rest = jnp.einsum("L,BLD->BD", jax.nn.softmax(params["mix"]), inputs), params["linear"]
    else:
        x_BH, rest = inputs, params["linear"]
    if probe.dropout and key is not None:
        kept = jax.random.bernoulli(key, 1 - probe.dropout, x_BH.shape)
        x_BH = jnp.where(kept, x_BH / (1 - probe.dropout), 0)
    for kernel, bias in rest[:-1]:
        x_BH = x_BH @ kernel + bias
        x_BH = x_BH if probe.reads == "layers" else jax.nn.relu(x_BH)
    kernel, bias = rest[-1]
    return x_BH @ kernel + bias


def _optimizer(probe: Probe, num_steps: int) -> optax.GradientTransformation:
    rate: optax.ScalarOrSchedule = probe.rate
    if probe.optimizer == "warm_adam":  # up to the middle, then down to 0
        half = max(1, num_steps // 2)
        rate = optax.join_schedules(
            [optax.linear_schedule(0.0, rate, half), optax.linear_schedule(rate, 0.0, max(1, num_steps - half))], [half]
        )
    if probe.optimizer == "cyclic_rmsprop":  # from half the rate up in ten epochs and down again, over and over
        up = max(1, num_steps * 10 // max(1, probe.epochs))
        wave = functools.partial(_triangle, low=probe.rate / 2, high=probe.rate, up=up)
        return optax.rmsprop(wave, decay=0.99, momentum=0.9)
    adam = optax.chain(optax.add_decayed_weights(probe.weight_decay), optax.adam(rate))
    return optax.chain(optax.clip_by_global_norm(probe.clip_norm), adam) if probe.clip_norm else adam


def _triangle(step: jax.Array, *, low: float, high: float, up: int) -> jax.Array:
    return low + (high - low) * (1 - jnp.abs((step % (2 * up)) / up - 1))


@functools.lru_cache(maxsize=32)
def _programs(probe: Probe, num_steps: int) -> tuple[Any, Any]:
    """learn(params, state, inputs, labels, rows [steps, B], keys) and look(params, inputs), compiled."""
    tx = _optimizer(probe, num_steps)

    def loss(params: Any, inputs: Any, labels_B: jax.Array, key: jax.Array) -> jax.Array:
        logits_BC = _logits(probe, params, inputs, key)
        return optax.softmax_cross_entropy_with_integer_labels(logits_BC, labels_B).mean()

    @jax.jit
    def learn(params: Any, state: Any, inputs: Any, labels: jax.Array, rows: jax.Array, keys: jax.Array) -> Any:
        def step(carry: Any, given: Any) -> Any:
            (params, state), (rows_B, key) = carry, given
            batch = jax.tree.map(lambda x: x[rows_B], inputs)
            grads = jax.grad(loss)(params, batch, labels[rows_B], key)
            updates, state = tx.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, state), (rows, keys))[0]

    return learn, jax.jit(lambda params, inputs: _logits(probe, params, inputs, None))
