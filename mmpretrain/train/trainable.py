"""What of a network learns: groups of parameters, when each begins to, how fast, and whether it decays.

The one mechanism for freezing, gradual unfreezing, probing and rates by layer. A parameter is known by its path, e.g.
`encoder.transformer.layers.attention.qkv.kernel`.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
from flax import nnx

from mmpretrain.models.layers import BatchNorm


@dataclasses.dataclass(frozen=True)
class Group:
    """Parameters whose path begins with the regular expression `paths`.

    from_step: how many steps they stay still before they learn; None: they never do. rate: times the learning rate.
    decays: whether weight decay is on them.
    """

    paths: str
    from_step: int | None = 0
    rate: float = 1.0
    decays: bool = True


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

    def hold_still(self, model: nnx.Module, phase: int) -> None:
        """Batch norms that do not learn in a phase use their running averages from now on, and do not move them."""
        for path, module in nnx.iter_modules(model):
            if isinstance(module, BatchNorm):
                start = self.group((*path, "scale")).from_step
                module.still = start is None or start > phase


EVERYTHING = Trainable()


def names_of(path: tuple[Any, ...]) -> tuple[Any, ...]:
    """The names along a path of a JAX tree of a Flax state, without the one that stands for a variable's value."""
    return tuple(entry.key for entry in path if hasattr(entry, "key"))
