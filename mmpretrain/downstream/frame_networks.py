"""Networks that learn what is said in every frame from a few labelled clips, from random weights or an encoder's.

All that a `FrameNetworks` trains is of one shape, so that one compilation serves every draw and number of clips.
Nothing is saved: a training is short, and its stage keeps the figures alone.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mmpretrain.config import FinetuneConfig, ModelConfig, TaskConfig, UnitsConfig
from mmpretrain.data.clips import ClipTable
from mmpretrain.downstream.frame_features import shown
from mmpretrain.evaluation.frames import Counts, count
from mmpretrain.models.sharing import share_out
from mmpretrain.objectives.supervised import Supervised
from mmpretrain.parallel.mesh import FrameShares, shard_batch
from mmpretrain.parallel.stopping import check_stop
from mmpretrain.randomness import part_seed
from mmpretrain.records import Batch
from mmpretrain.run.base import RunBase
from mmpretrain.run.forward import Forward
from mmpretrain.run.source import SourceEncoder
from mmpretrain.train.optimizer import make_optimizer
from mmpretrain.train.step import Trainer, TrainState


@dataclasses.dataclass(frozen=True)
class FrameNetworks:
    """labels_NT: of the table, -1 where there is none. model: the network, without the rates of pretraining.

    silence: the class that is left out of sequences; None: none.
    """

    run: RunBase
    config: UnitsConfig
    task: TaskConfig
    table: ClipTable
    labels_NT: np.ndarray
    model: ModelConfig
    silence: int | None

    def train(
        self, name: str, rows: np.ndarray, validation: np.ndarray, inputs: Sequence[str], start: SourceEncoder | None
    ) -> tuple[TrainState, int]:
        """The state with the lowest error on the validation clips, and its step. name: of all that is random.

        rows: the clips to learn from. start: the encoder whose weights it begins with; None: random ones.
        """
        seed, trainer, config = part_seed(self.run.config.seed, name), self.trainer, self.config
        state = trainer.init(seed)
        if start is not None:
            state = start.put_into(state, trainer)
        best: tuple[float, TrainState, int] | None = None
        for step, batch in enumerate(self._batches(name, rows, inputs), start=1):
            state, _ = trainer.step(state, batch)
            if step % config.eval_every == 0 or step == config.num_steps:
                check_stop()
                error = self.counts(state, validation, inputs).error
                if best is None or error < best[0]:
                    best = error, jax.tree.map(jnp.copy, state), step  # the step uses up what it is given
        assert best is not None
        return best[1], best[2]

    def counts(self, state: TrainState, rows: np.ndarray, inputs: Sequence[str]) -> Counts:
        """What a state says of these clips, in their order."""
        said: dict[int, np.ndarray] = {}
        for row, num_frames, answers_T in self._forward(tuple(inputs))(state, self.table.select(rows)):
            said[row] = answers_T[:num_frames]
        labels = [self.labels_NT[row, : self.table.lengths[row]] for row in rows]
        return count(labels, [said[i] for i in range(len(rows))], self.silence)

    @functools.cached_property
    def trainer(self) -> Trainer:
        tx = make_optimizer(self.config.optimizer, self.config.num_steps)
        return self.run.make_trainer(Supervised(self.model, FinetuneConfig(tasks=(self.task,))), tx)

    def _batches(self, name: str, rows: np.ndarray, inputs: Sequence[str]) -> Iterator[Batch]:
        labels = {self.task.name: self.labels_NT[rows]}
        batches = self.run.training_batches(
            name, self.table.select(rows), self.model, self.config.num_steps, batch_frames=self.config.batch_frames,
            labels=labels, of_frames=tuple(labels), field="units.batch_frames",
        )  # fmt: skip
        return (shard_batch(shown(batch, inputs), self.run.mesh) for batch in batches(0))

    def _forward(self, inputs: tuple[str, ...]) -> Forward:
        """What a state answers to every frame of clips of which these modalities are shown."""
        if inputs not in self._forwards:
            graphdef, objective, name = self.trainer.graphdef, self.trainer.objective, self.task.name

            def answers(state: TrainState, batch: Batch) -> jax.Array:
                model = nnx.merge(graphdef, state.params, state.kept, copy=True)
                share_out(model, FrameShares(self.run.mesh))
                return objective.outputs(model, shown(batch, inputs))[name].argmax(-1)

            self._forwards[inputs] = Forward(self.run, self.model, answers, self.config.batch_frames, everywhere=True)
        return self._forwards[inputs]

    @functools.cached_property
    def _forwards(self) -> dict[tuple[str, ...], Forward]:
        return {}
