"""Our pretraining step and PyTorch's, each to be made in a process of its own (`measuring.Remote`).

Ours is the trainer and the objective that `pretrain` runs; PyTorch's is `torch_baseline`. They begin with the same
weights, batch and masks, which ours leaves in a folder. Needs JAX, Flax, optax and PyTorch, and nothing of the stages.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.measuring import Turn, timed
from mmpretrain import heap
from mmpretrain.config import AUDIO_DIM, ModelConfig, RunConfig
from mmpretrain.randomness import generator

if TYPE_CHECKING:
    from flax import nnx

    from mmpretrain.records import Batch
    from mmpretrain.train.step import Trainer, TrainState

WEIGHTS, BATCH = "weights.npz", "batch.npz"
RUN_ONCE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # for the CPU's compiler


@dataclasses.dataclass(frozen=True)
class Work:
    """A step of one round (from 1) of a recipe, or with `forward` the features of a batch: clips x frames, no padding.

    device: "cpu" or "cuda". folder: for what the contestants hand on, and what compilers keep.
    """

    config: RunConfig
    round: int
    clips: int
    frames: int
    forward: bool
    device: str
    folder: Path


class Ours:
    """Of one device. about: the device, the first loss, seconds of compiling, cold and from the compiler's cache."""

    def __init__(self, work: Work, name: str):
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the peak is then what is needed, and others have room
        heap.keep_freed()  # as the command does
        import jax

        jax.config.update("jax_platforms", work.device)
        from jax.experimental.compilation_cache import compilation_cache

        from mmpretrain import compiler
        from mmpretrain.parallel.mesh import shard_batch

        trainer = make_trainer(work.config, work.round)
        batch = random_batch(work.config.model, work)
        self.state, self.batch = first_state(trainer, work), shard_batch(batch, trainer.mesh)
        if not (work.folder / BATCH).exists():
            np.savez(work.folder / WEIGHTS, **arrays_of(self.state.params, self.state.kept))
            np.savez(work.folder / BATCH, **drawn(trainer, self.state, batch))
        compilation_cache.reset_cache()
        jax.config.update("jax_compilation_cache_dir", str(work.folder / name))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        if work.forward:
            options = compiler.for_forward(work.device)
            features = jax.jit(lambda state, batch: trainer.model(state).encoder(batch), compiler_options=options)
            self._step, cold, cached = _compiled(features, self.state, self.batch)
        else:
            self._step, cold, cached = _compiled(trainer.step, self.state, self.batch)
        self.forward = work.forward
        self._once()()
        device = jax.devices()[0]
        self.about = {
            "device": device.device_kind, "version": f"jax {jax.__version__}", "first_loss": self.loss,
            "compile_sec": cold, "cached_compile_sec": cached,
        }  # fmt: skip

    def _once(self) -> Callable[[], Any]:
        import jax

        if self.forward:
            features = self._step(self.state, self.batch)
            self.loss = None
            return lambda: jax.block_until_ready(features)
        self.state, metrics = self._step(self.state, self.batch)

        def wait() -> None:
            self.loss = float(metrics["loss"])
            jax.block_until_ready(self.state)

        return wait

    def run(self, repetitions: int) -> Turn:
        return timed(self._once, repetitions)

    def peak_bytes(self) -> int:
        from mmpretrain.observe.memory import peak_memory

        return next(iter(peak_memory().values()))


def _compiled(function: Any, *arguments: Any) -> tuple[Callable[..., Any], float, float]:
    """The compiled function, and seconds of tracing and compiling it, first anew and then out of the cache on disk."""
    import jax

    seconds = []
    for _ in range(2):
        jax.clear_caches()
        start = time.perf_counter()
        compiled = function.lower(*arguments).compile()
        seconds.append(time.perf_counter() - start)
    return compiled, *seconds


def make_trainer(config: RunConfig, number: int) -> Trainer:
    """Of round `number` (from 1) on the first device, as the stage makes it."""
    import jax

    from mmpretrain.config import ParallelConfig
    from mmpretrain.objectives import OBJECTIVES
    from mmpretrain.parallel.mesh import make_mesh
    from mmpretrain.train.optimizer import make_optimizer
    from mmpretrain.train.step import Trainer

    round_ = config.rounds[number - 1]
    objective = OBJECTIVES[round_.objective](config.model, round_)
    optimizer = make_optimizer(round_.optimizer, round_.num_steps)
    mesh = make_mesh(ParallelConfig(), jax.devices()[:1])
    return Trainer(objective, optimizer, mesh, micro_batches=config.parallel.micro_batches, health=config.health)


def first_state(trainer: Trainer, work: Work) -> TrainState:
    """As `Trainer.init`, which a CPU would compile for longer than the step of a small network."""
    import jax

    from mmpretrain.randomness import seed_key
    from mmpretrain.train.step import new_state

    key = jax.random.key_data(seed_key(work.config.seed))
    init = jax.jit(functools.partial(new_state, trainer), out_shardings=trainer.placed).lower(key)
    return init.compile(compiler_options=RUN_ONCE if work.device == "cpu" else {})(key)


def random_batch(model: ModelConfig, work: Work) -> Batch:
    """Clips with sound and pictures, a target for every frame; nothing of it means anything."""
    from mmpretrain.records import Batch

    B, T, S, rng = work.clips, work.frames, model.inputs.image_size, generator(work.config.seed, "benchmark batch")
    inputs = {
        "audio": rng.standard_normal((B, T, AUDIO_DIM), np.float32),
        "video": rng.integers(0, 256, (B, T, S, S), np.uint8),
    }
    clusters = [targets.num_clusters for targets in work.config.rounds[work.round - 1].targets]
    return Batch(
        inputs={name: inputs[name] for name in model.modalities},
        present={name: np.full(B, True) for name in model.modalities},
        valid_BT=np.full((B, T), True),
        targets_BTS=np.stack([rng.integers(0, K, (B, T), np.int32) for K in clusters], axis=-1),
        labels={},
        clip_B=np.arange(B, dtype=np.int32),
        chance_B=np.arange(B, dtype=np.uint32),
    )


def arrays_of(*states: nnx.State) -> dict[str, np.ndarray]:
    """The arrays of Flax states by path, such as encoder.fusion.proj.kernel."""
    from flax import nnx

    flat = [pair for state in states for pair in nnx.to_flat_state(state)]
    return {".".join(map(str, path)): np.asarray(variable[...]) for path, variable in flat}


def drawn(trainer: Trainer, state: TrainState, batch: Batch) -> dict[str, np.ndarray]:
    """The batch with the masks that our next step draws for it, as `torch_baseline` takes it."""
    from mmpretrain.train.step import draw

    masks, _ = draw(trainer, state, batch, train=True)
    arrays = {
        "audio": batch.inputs["audio"], "video": batch.inputs["video"],
        "targets": batch.targets_BTS[..., 0].astype(np.int64),
        "audio_mask": masks.audio_BT, "video_mask": masks.video_BT, "source": np.asarray(masks.source_BT, np.int64),
        "use_audio": masks.use["audio"], "use_video": masks.use["video"],
    }  # fmt: skip
    return {name: np.asarray(array) for name, array in arrays.items()}


class PyTorch:
    """The baseline. about: as ours."""

    def __init__(self, work: Work, compiled: bool):
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(work.folder / "torch")
        import torch

        from benchmarks import torch_baseline

        torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as JAX
        torch.manual_seed(work.config.seed)
        device, self.round = torch.device(work.device), work.config.rounds[work.round - 1]
        self.model = torch_baseline.Pretraining(work.config.model, self.round)
        self.model.load_state_dict(torch_baseline.as_torch(_Arrays(work.folder / WEIGHTS)), strict=False)
        self.model.to(device).train(not work.forward)
        with np.load(work.folder / BATCH) as arrays:
            self.batch = {name: torch.tensor(array, device=device) for name, array in arrays.items()}
        self.optimizer = torch_baseline.make_optimizer(self.model, self.round)
        self.forward, self.device = work.forward, device
        about: dict[str, Any] = {"version": f"torch {torch.__version__}", "first_loss": None}
        if compiled:
            self.model.compile_parts()
            seconds = []
            for _ in range(2):
                torch.compiler.reset()
                seconds.append(timed(self._once).wall_sec)
                about["first_loss"] = about["first_loss"] or self.loss
            step = timed(self._once).wall_sec
            about |= {"compile_sec": seconds[0] - step, "cached_compile_sec": seconds[1] - step}
        else:
            self._once()()
            about["first_loss"] = self.loss
        self.about = about

    def _once(self) -> Callable[[], Any]:
        import torch

        from benchmarks import torch_baseline

        if self.forward:
            self.model.features(self.batch)
            loss = None
        else:
            loss = torch_baseline.train_step(self.model, self.optimizer, self.batch, self.round.optimizer.clip_norm)

        def wait() -> None:
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            self.loss = None if loss is None else float(loss)

        return wait

    def run(self, repetitions: int) -> Turn:
        return timed(self._once, repetitions)

    def peak_bytes(self) -> int:
        import torch

        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class _Arrays(Mapping):
    """The arrays of a file, each read when it is asked for, so that they are in memory once."""

    def __init__(self, path: Path):
        self._file = np.load(path)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._file[name]

    def __iter__(self):
        return iter(self._file)

    def __len__(self) -> int:
        return len(self._file)
