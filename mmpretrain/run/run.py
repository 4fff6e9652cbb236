"""A run: what its parts stand on, and its rounds. What stages and tools are given."""

from __future__ import annotations

import functools
from typing import Any

from mmpretrain.run.base import RunBase
from mmpretrain.run.round import Round


class Run(RunBase):
    """A checked recipe, ready to run; see `RunBase`."""

    def round(self, number: int) -> Round:
        """Round `number`, from 1: one object, however often it is asked for."""
        if number not in self._rounds:
            self._rounds[number] = Round(self, number)
        return self._rounds[number]

    @functools.cached_property
    def parts(self) -> dict[type, Any]:
        """What is made of its recipe once for all stages, by its class."""
        return {}

    @functools.cached_property
    def _rounds(self) -> dict[int, Round]:
        return {}
