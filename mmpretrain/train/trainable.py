"""What of a network learns: groups of parameters, when each begins to, how fast, and whether it decays.

The one mechanism for freezing, gradual unfreezing, probing and rates by layer. A parameter is known by its path, e.g.
`encoder.transformer.layers.attention.qkv.kernel`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx

from mmpretrain.models.layers import BatchNorm


@dataclasses.dataclass(frozen=True)
class Group:
    """Parameters whose path begins with the regular expression `paths`.

    from_step: how many steps they stay still before they learn; None: they never do. rate: times the learning rate.
    decays: whether weight decay is on them. Of parameters whose first dim is layers, one number a layer:
    layer_rates: times the learning rate besides; layer_waits: how many steps more a layer stays still.
    """

    paths: str
    from_step: int | None = 0
    rate: float = 1.0
    decays: bool = True
    layer_rates: tuple[float, ...] = ()
    layer_waits: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Trainable:
    """A parameter belongs to the first of the groups that fits its path, or else learns from the start."""

    groups: tuple[Group, ...] = ()

    @property
    def phases(self) -> tuple[int, ...]:
        """The steps at which another set of parameters begins to learn, the first being 0."""
        return tuple(sorted({0, *(group.from_step for group in self.groups if group.from_step is not None)}))

    def phase_of(self, step: int) -> int:
        """The phase of the step that comes after `step` others."""
        return max(start for start in self.phases if start <= step)

    def group(self, path: tuple[Any, ...]) -> Group:
        """The group of a parameter."""
        name = ".".join(map(str, path))
        return next((group for group in self.groups if re.match(group.paths, name)), Group(""))

    def split(self, params: nnx.State, phase: int | None = None) -> tuple[nnx.State, nnx.State]:
        """The parameters that learn in the phase that begins at step `phase` (None: ever), and the others."""

        def learns(path: tuple[Any, ...], _: Any) -> bool:
            start = self.group(path).from_step
            return start is not None and (phase is None or start <= phase)

        return nnx.split_state(params, learns, ...)

    def of_each(self, params: nnx.State, field: str) -> nnx.State:
        """A field of its group for each parameter, as a tree of the same structure."""
        return jax.tree_util.tree_map_with_path(lambda path, _: getattr(self.group(names_of(path)), field), params)

    def rates(self, params: nnx.State) -> nnx.State:
        """Of each parameter what its updates are multiplied by: a number, or an array with a dim of layers."""

        def rate(group: Group, ndim: int) -> Any:
            return group.rate * _by_layer(group.layer_rates, ndim, np.float32) if group.layer_rates else group.rate

        return self._of_each(params, rate)

    def waits(self, params: nnx.State) -> nnx.State:
        """Of each parameter how many updates its layers stay still behind the group's `from_step`: 0, or an array."""
        return self._of_each(
            params, lambda group, n: _by_layer(group.layer_waits, n, np.int32) if group.layer_waits else 0
        )

    @property
    def waiting(self) -> bool:
        """Whether some layers begin later than others of their group."""
        return any(any(group.layer_waits) for group in self.groups)

    def _of_each(self, params: nnx.State, make: Callable[[Group, int], Any]) -> nnx.State:
        return jax.tree_util.tree_map_with_path(lambda path, x: make(self.group(names_of(path)), x.ndim), params)

    def hold_still(self, model: nnx.Module, phase: int) -> None:
        """Batch norms that do not learn in a phase use their running averages from now on, and do not move them."""
        for path, module in nnx.iter_modules(model):
            if isinstance(module, BatchNorm):
                start = self.group((*path, "scale")).from_step
                module.still = start is None or start > phase


def _by_layer(numbers: tuple[float, ...], ndim: int, dtype: type) -> np.ndarray:
    """[L, 1, ...] of `ndim` dims."""
    return np.array(numbers, dtype).reshape(-1, *[1] * (ndim - 1))


EVERYTHING = Trainable()


def names_of(path: tuple[Any, ...]) -> tuple[Any, ...]:
    """The names along a path of a JAX tree of a Flax state, without the one that stands for a variable's value."""
    return tuple(entry.key for entry in path if hasattr(entry, "key"))
