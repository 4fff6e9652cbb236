"""`mmpretrain recipes show --config=RECIPE`: every field of a recipe, its value and what it may hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from mmpretrain.config import RunConfig, range_text
from mmpretrain.run.command import Command, Option, table


def show(config: RunConfig, below: str = "") -> str:
    """A line for each field, `FIELD=VALUE` as it is written after `--config.`, what it may hold, and the default where
    the value is another.

    below: the field to show with all that is below it, e.g. "finetune.optimizer" or "rounds[0]"; "": all.
    Raises ValueError for a field that the recipe does not have.
    """
    every = list(_fields(config, RunConfig()))
    rows = [
        (f"{path}={_written(value)}", range_text(RunConfig, path) + _otherwise(value, default))
        for path, value, default in every
        if not below or path == below or path.startswith((f"{below}.", f"{below}["))
    ]
    if not rows:
        known = dict.fromkeys(path.partition(".")[0] for path, _, _ in every)
        raise ValueError(f"--field={below}: the recipe has no such field; it has {', '.join(known)}, and those below")
    return "\n".join(table(rows))


def _written(value: Any) -> str:
    return "''" if value == "" else str(value)


def _otherwise(value: Any, default: Any) -> str:
    return "" if value == default else f"; by default {_written(default)}"


def _fields(config: Any, default: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Path, value and default of every field of a tree that holds no other tree."""
    for field in dataclasses.fields(config):
        path = f"{name}.{field.name}" if name else field.name
        value, usual = getattr(config, field.name), getattr(default, field.name)
        if dataclasses.is_dataclass(value):
            yield from _fields(value, usual if type(usual) is type(value) else type(value)(), path)
        elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            for i, element in enumerate(value):
                yield from _fields(element, type(element)(), f"{path}[{i}]")
        else:
            yield path, value, usual


COMMAND = Command(
    "recipes show",
    "every field of a recipe, its value and what it may hold",
    lambda given: print(show(given.config, given["field"] or "")),
    options=(Option("field", str, "this field alone, and all that is below it", "FIELD"),),
    examples=(
        "mmpretrain recipes show --config=demo",
        "mmpretrain recipes show --config=demo --field='rounds[0]'",
        "mmpretrain recipes show --config=ravdess --field=finetune.optimizer --config.finetune.optimizer.peak_lr=1e-4",
    ),
)
