"""`mmpretrain recipes copy NAME FILE`: a recipe as a file of one's own."""

from __future__ import annotations

from pathlib import Path

from mmpretrain.files import write_new
from mmpretrain.run.command import Argument, Command, Given
from mmpretrain.run.shipped import find_recipe


def copy_recipe(name: str, file: Path) -> None:
    """Writes the recipe of that name, without its variant, to a new file.

    Raises FileNotFoundError for a name that no recipe has, and ValueError where there is something at `file` already.
    """
    source = Path(find_recipe(name).partition(":")[0])
    if file.suffix != ".py":
        raise ValueError(f"{file}: a recipe is a Python file; call it {file.name}.py")
    file.parent.mkdir(parents=True, exist_ok=True)
    if not write_new(file, source.read_text(encoding="utf-8")):
        raise ValueError(f"{file}: there is something already; give the name of a new file")


def _command(given: Given) -> None:
    name, file = given.paths
    copy_recipe(str(name), file)
    print(f"{file}: give it to a command with --config={file}")


COMMAND = Command(
    "recipes copy",
    "a recipe that comes with the program, as a file to change",
    _command,
    takes=Argument("NAME FILE", "the name of a recipe that `mmpretrain recipes` lists, and a new file", count=2),
    examples=("mmpretrain recipes copy small_real mine.py",),
)
