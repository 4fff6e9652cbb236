"""The recipes that come with the program: `configs/` of a checkout, or its copy in the installed package.

A recipe is named by its file without `.py` (`demo`, `small_real`), with the folder before it where one likes
(`pretrain/small_real`), and `:VARIANT` where it has variants. Does without JAX.
"""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).absolute().parents[1]
INSTALLED = PACKAGE / "recipes" / "configs"  # setup.py puts them there


def recipe_folder() -> Path:
    """The folder `configs`. Raises FileNotFoundError where the program has come without it."""
    for folder in (INSTALLED, PACKAGE.parent / "configs"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"{INSTALLED}: the recipes are not there; install mmpretrain again")


def shipped_recipes() -> dict[str, Path]:
    """The file of each recipe by its name with its folder, `pretrain/small_real`; those without a folder first."""
    folder = recipe_folder()
    files = [file for file in folder.rglob("*.py") if file.name != "__init__.py"]
    files.sort(key=lambda file: (file.parent != folder, file))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def find_recipe(given: str) -> str:
    """What to read for `--config={given}`: a path as it is, with its `:VARIANT`, and a name as the path it stands for.

    Raises FileNotFoundError where it is neither.
    """
    name, colon, variant = given.partition(":")
    if Path(name).is_file():
        return given
    recipes = shipped_recipes()
    found = [path for known, path in recipes.items() if name in (known, known.rpartition("/")[2])]
    if len(found) != 1:
        raise FileNotFoundError(
            f"--config={given}: there is no such file, and no recipe of that name; there are {', '.join(recipes)} "
            "(`mmpretrain recipes` says what they are)"
        )
    return f"{found[0]}{colon}{variant}"


def summary(recipe: Path) -> str:
    """The first sentence of what the recipe says of itself, on one line."""
    text = " ".join((ast.get_docstring(ast.parse(recipe.read_text())) or "").split())
    end = text.find(". ")
    return text if end < 0 else text[: end + 1]
