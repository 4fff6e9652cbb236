"""A run: what its parts stand on, and its rounds. What stages and tools are given."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from mmpretrain.run.base import RunBase
from mmpretrain.run.round import Round
from mmpretrain.run.source import SourceEncoder


class Run(RunBase):
    """A checked recipe, ready to run; see `RunBase`."""

    def round(self, number: int) -> Round:
        """Round `number`, from 1: one object, however often it is asked for."""
        if number not in self._rounds:
            self._rounds[number] = Round(self, number)
        return self._rounds[number]

    def encoder_named(self, given: str, field: str, remedy: str = "name an encoder") -> SourceEncoder:
        """What a field names: the encoder that the last round left ("last_round"), or the folder of one.

        Raises ValueError for the last of no rounds.
        """
        if given != "last_round":
            return SourceEncoder(Path(given))
        if not (number := len(self.config.rounds)):
            raise ValueError(f"{field}='last_round', but this recipe has no rounds; {remedy}")
        return self.round(number).encoder

    @functools.cached_property
    def parts(self) -> dict[type, Any]:
        """What is made of its recipe once for all stages, by its class."""
        return {}

    @functools.cached_property
    def _rounds(self) -> dict[int, Round]:
        return {}
