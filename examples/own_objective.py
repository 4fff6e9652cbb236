"""An objective of one's own: what is hidden of the sound is to be said again, row by row, from what is left.

mmpretrain refine --config=examples/own_objective.py --config.data.corpora[0].path=prepared/mine
"""

import dataclasses

import jax.numpy as jnp
from flax import nnx

from mmpretrain.config import AUDIO_DIM, CorpusConfig, DataConfig, RoundConfig, RunConfig, encoder_size, mfcc
from mmpretrain.models.encoder import AVEncoder
from mmpretrain.models.layers import linear
from mmpretrain.objectives import OBJECTIVES
from mmpretrain.objectives.base import Objective, Sums, total
from mmpretrain.objectives.masking import span_mask
from mmpretrain.randomness import named


class Network(nnx.Module):
    def __init__(self, config, *, rngs):
        self.encoder = AVEncoder(config, rngs=rngs)  # which the round leaves, under this name
        self.say = linear(config.width, AUDIO_DIM, ("embed", None), dtype="float32", rngs=rngs)


@dataclasses.dataclass(frozen=True)
class Reconstruction(Objective):
    model: object
    round: object

    def make_model(self, rngs):
        return Network(self.model, rngs=rngs)

    def draw(self, keys_B, batch, *, step, train):
        return span_mask(named(keys_B, "hidden"), batch.valid_BT, prob=0.5, span_frames=10)

    def loss(self, model, batch, draws, key, *, train, counts=None):
        prepared = model.encoder.prepare(batch.inputs, batch.valid_BT)
        prepared["audio"] = jnp.where(draws[..., None], 0, prepared["audio"])
        x_BTD, _ = model.encoder.embed(prepared, batch.valid_BT, batch.present, key, train=train)
        said_BTF = model.say(model.encoder.contextualize(x_BTD, batch.valid_BT, key).astype(jnp.float32))
        error_BT = jnp.abs(said_BTF - batch.inputs["audio"]).mean(-1)
        asked_BT = draws & batch.present["audio"][:, None]
        return Sums(total(error_BT, asked_BT), total(1, asked_BT), {})  # sums, never means


OBJECTIVES["reconstruction"] = Reconstruction


def get_config() -> RunConfig:
    return RunConfig(
        workdir="runs/own_objective",
        data=DataConfig(corpora=(CorpusConfig("prepared/mine"),), batch_frames=2_000, bucket_frames=(100, 200, 400)),
        model=encoder_size("tiny", modalities=("audio",)),
        rounds=(RoundConfig(objective="reconstruction", targets=mfcc(50), num_steps=1_000),),  # targets: not used here
    )
