"""An objective that keeps more than parameters: a teacher that follows the student, and a codebook of its features.

A toy of what self-distillation with online clustering does, small enough to compile in a second.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from mmpretrain.config import AUDIO_DIM
from mmpretrain.objectives.base import Objective, Sums

DIM, CODES, DECAY = 8, 4, 0.9


class Teacher(nnx.Variable):
    """Follows a parameter."""


class Codebook(nnx.Variable):
    """Follows the features of the batches."""


class Network(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        kernel = jax.random.normal(rngs.params(), (AUDIO_DIM, DIM)) / AUDIO_DIM**0.5
        self.student = nnx.Param(kernel, axes=(None, "embed"))
        self.predict = nnx.Param(jax.random.normal(rngs.params(), (DIM, CODES)) / DIM**0.5, axes=("embed", None))
        self.teacher = Teacher(kernel, axes=(None, "embed"))
        self.codes = Codebook(jax.random.normal(rngs.params(), (CODES, DIM)), axes=("clusters", "embed"))
        self.hits = Codebook(jnp.ones(CODES), axes=("clusters",))


@dataclasses.dataclass(frozen=True)
class Distillation(Objective):
    """The student tells, of noisy sound, the code that is nearest to what the teacher makes of the sound itself."""

    better: ClassVar[dict[str, str]] = {"loss": "lower", "spread": "higher"}

    def make_model(self, rngs):
        return Network(rngs)

    def draw(self, keys_B, batch, *, step, train):
        assert isinstance(train, bool)
        scale = jnp.where(step < 2, 0.1, 0.2)  # what is drawn may depend on the step
        return scale * jax.vmap(lambda key: jax.random.normal(key, batch.inputs["audio"].shape[1:]))(keys_B)

    def loss(self, model, batch, draws, key, *, train, counts=None):
        sound_BTF, valid_BT = batch.inputs["audio"], batch.valid_BT
        teacher_BTD = jax.lax.stop_gradient(jnp.tanh(sound_BTF @ model.teacher[...]))
        nearest_BT = jnp.square(teacher_BTD[:, :, None] - model.codes[...]).sum(-1).argmin(-1)
        logits_BTK = jnp.tanh((sound_BTF + draws) @ model.student[...]) @ model.predict[...]
        nll_BT = -jnp.take_along_axis(jax.nn.log_softmax(logits_BTK), nearest_BT[..., None], -1)[..., 0]
        code_BTK = jax.nn.one_hot(nearest_BT, CODES) * valid_BT[..., None]
        more = {
            "codes": jnp.einsum("BTK,BTD->KD", code_BTK, teacher_BTD), "hits": code_BTK.sum((0, 1)),
            "moments": jnp.stack([jnp.where(valid_BT, nll_BT**n, 0).sum() for n in (1, 2)]),
        }  # fmt: skip
        return Sums(jnp.where(valid_BT, nll_BT, 0).sum(), valid_BT.sum(dtype=jnp.float32), {}, more)

    def summarize(self, sums):
        mean, square = sums.more["moments"] / sums.weight
        return {"loss": sums.loss / sums.weight, "spread": (square - mean**2) ** 0.5}

    def after_update(self, model, sums, step):
        model.teacher[...] = DECAY * model.teacher[...] + (1 - DECAY) * model.student[...]
        hit_K = sums.more["hits"] > 0
        mean_KD = sums.more["codes"] / jnp.maximum(sums.more["hits"], 1)[:, None]
        model.codes[...] = jnp.where(hit_K[:, None], DECAY * model.codes[...] + (1 - DECAY) * mean_KD, model.codes[...])
        model.hits[...] += sums.more["hits"]
