"""`mmpretrain recipes`: the recipes that come with the program, and what each is for."""

from __future__ import annotations

from mmpretrain.run.command import NOTHING, Command, Given, table
from mmpretrain.run.shipped import shipped_recipes, summary


def _command(given: Given) -> None:
    print("\n".join(table([(name, summary(path)) for name, path in shipped_recipes().items()])))


COMMAND = Command(
    "recipes",
    "the recipes that come with the program, by name",
    _command,
    takes=NOTHING,
    details=(
        "--config=NAME takes any of them; `mmpretrain recipes show` lists the fields of one. To change more than a "
        "field or two, copy it with `mmpretrain recipes copy`.",
    ),
    examples=("mmpretrain recipes",),
)
