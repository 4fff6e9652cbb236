"""A stage is a folder that is whole or not: it has `result.json`, written last, or it is taken up where it stopped.

A result that is damaged is none: the stage goes on from what else it left and writes it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpretrain.config import fingerprint
from mmpretrain.files import DRAFT, SEAL, DamagedError, read_json, write_json
from mmpretrain.observe.progress import is_main_process, log
from mmpretrain.observe.wall_time import WallTime, is_number
from mmpretrain.parallel.processes import on_main
from mmpretrain.parallel.stopping import check_stop
from mmpretrain.report.tables import duration
from mmpretrain.run.sealed import check_sealed, write_sealed

RESULT_FILE = "result.json"
RECIPE_FILE = "recipe.json"
WALL_TIME_FILE = "wall_time.json"
CHANGES_FILE = "changes.json"
MAKE_AGAIN = "the command that made it writes it again"
FORMAT = 3  # of a stage's recipe: the fields that it reads and the fingerprints of what it takes


def run_stage(
    workdir: Path,
    name: str,
    recipe: Mapping[str, Any],
    work: Callable[[Path, WallTime], dict[str, Any]],
    *,
    accept_changes: bool = False,
) -> dict[str, Any]:
    """Returns the result of stage `name`: what an earlier run left, or what `work(folder, wall)` returns now.

    All processes of the run come here; process 0 reads and writes the stage's files, `work` is done by all.

    recipe: what decides the result and no more, flat. The result gets `wall_time_sec`, summed over interrupted
    attempts, and the goodput if it trained (see `WallTime.figures`).

    Raises ValueError if the folder was made with another recipe. With `accept_changes` a stage that is not done goes on
    under the new recipe instead, one that is done stays as it is, and `changes.json` records what changed.
    """
    folder, recipe = workdir / name, {"format": FORMAT, **recipe}
    check_stop()
    if on_main(lambda: _is_done(folder, recipe, accept_changes)):
        log(f"{name}: done already")
        return on_main(lambda: read_result(workdir, name))
    log(f"{name}: {'taken up again' if on_main(lambda: _begin(folder, recipe)) else 'started'} in {folder}")
    with WallTime(folder / WALL_TIME_FILE if is_main_process() else None) as wall:
        result = work(folder, wall)
    on_main(lambda: write_sealed(folder / RESULT_FILE, result | wall.figures()))
    log(f"{name}: finished in {duration(wall.figures()['wall_time_sec'])}")
    return on_main(lambda: read_result(workdir, name))


def check_begun(workdir: Path, name: str, fields: Mapping[str, Any]) -> None:
    """Raises ValueError if stage `name` was begun with other values of these fields, a part of its recipe.

    For stages whose whole recipe can only be known of fields that work: that they were changed is the better reason.
    """
    folder = workdir / name

    def look() -> None:
        try:
            made_with = _made_with(folder)
        except DamagedError:
            return  # the stage itself speaks of that
        if made_with is not None:
            _check_recipe(folder, {**made_with, "format": FORMAT, **fields}, accept_changes=False)

    on_main(look)


def changes_since(workdir: Path, name: str, fields: Mapping[str, Any]) -> str:
    """In words, which of these fields, a part of its recipe, stage `name` was made with otherwise; "" if none was.

    "" too of a stage that was not begun. Raises DamagedError where that cannot be known.
    """
    if (made_with := _made_with(workdir / name)) is None:
        return ""
    recipe = {**made_with, **fields}
    return _shown(_changed(made_with, recipe), made_with, recipe)


def read_result(workdir: Path, name: str) -> dict[str, Any]:
    """The result of a stage that is whole. Raises FileNotFoundError or DamagedError saying what to run otherwise."""
    file = workdir / name / RESULT_FILE
    try:
        result = read_json(file, fields=("wall_time_sec",), remedy=MAKE_AGAIN)
        check_sealed(file, remedy=MAKE_AGAIN)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"stage {name} of {workdir} is not finished; run it first (or all: `mmpretrain run`)"
        ) from None
    if not is_number(result["wall_time_sec"]):
        raise DamagedError(f"{file} is damaged (its wall_time_sec is no number); {MAKE_AGAIN}")
    return result


def fingerprint_of_made(folder: Path, recipe: Mapping[str, Any]) -> str:
    """Of what a stage leaves: of the recipe that decides it and of the changes of it that were accepted on the way."""
    changes = read_json(folder / CHANGES_FILE, kind=list, if_missing=[])
    return fingerprint({**recipe, "changes": changes} if changes else recipe)


def known_result(workdir: Path, name: str) -> dict[str, Any] | None:
    """The result of a stage; None where it is not whole."""
    try:
        return read_result(workdir, name)
    except (FileNotFoundError, DamagedError):
        return None


def _is_done(folder: Path, recipe: Mapping[str, Any], accept_changes: bool) -> bool:
    _check_recipe(folder, recipe, accept_changes)
    try:
        read_result(folder, "")
    except FileNotFoundError:
        return False
    except DamagedError as error:
        log(f"{error}: now")
        return False
    return True


def _begin(folder: Path, recipe: Mapping[str, Any]) -> bool:
    """Whether the stage was begun before."""
    again = (folder / RECIPE_FILE).exists()
    write_sealed(folder / RECIPE_FILE, dict(recipe))
    return again


def _check_recipe(folder: Path, recipe: Mapping[str, Any], accept_changes: bool) -> None:
    try:
        made_with = _made_with(folder)
    except DamagedError as error:
        if not accept_changes:
            raise
        log(f"{error}: accepted")
        write_sealed(folder / RECIPE_FILE, dict(recipe))
        return
    if made_with is None or fingerprint(made_with) == fingerprint(recipe):
        return
    if made_with.get("format") != FORMAT:
        raise ValueError(
            f"{folder} was made by a version of mmpretrain that this one does not continue (its {RECIPE_FILE} has "
            f"format {made_with.get('format')}, not {FORMAT}); go on with that version, give another --config.workdir, "
            f"or remove {folder}"
        )
    if not (changed := _changed(made_with, recipe)):
        return
    shown = _shown(changed, made_with, recipe)
    done = (folder / RESULT_FILE).exists()
    if not accept_changes:
        accept = "keep what is finished as it is" if done else "go on with the new one from here"
        raise ValueError(
            f"{folder} was made with another recipe ({shown}); go back to it, give another --config.workdir, remove "
            f"{folder}, or {accept}: --accept_changes"
        )
    log(f"{folder}: accepted that {shown}{'; it is finished and stays as it is' * done}")
    try:
        changes = read_json(folder / CHANGES_FILE, kind=list, if_missing=[])
    except DamagedError as error:
        log(f"{error}; it begins anew")
        changes = []
    changes.append({key: [made_with.get(key), recipe.get(key)] for key in changed})
    write_json(folder / CHANGES_FILE, changes)
    write_sealed(folder / RECIPE_FILE, dict(recipe))


def _changed(made_with: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[str]:
    """The fields of another value: tuples are lists in a file, and 20 and 20.0 are one value."""
    missing, recipe = object(), json.loads(json.dumps(recipe))
    return [key for key in {**made_with, **recipe} if made_with.get(key, missing) != recipe.get(key, missing)]


def _shown(changed: Sequence[str], made_with: Mapping[str, Any], recipe: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{key} was {made_with.get(key)!r} and is {recipe.get(key)!r}" for key in changed[:4])
    return shown + (", ..." if len(changed) > 4 else "")


def _made_with(folder: Path) -> dict[str, Any] | None:
    """The recipe that a stage was begun with; None if it was not. Raises DamagedError where that cannot be known."""
    remedy = (
        f"what made {folder} cannot be known; remove {folder} to make it anew, or go on with what is there: "
        "--accept_changes"
    )
    try:
        if made_with := read_json(folder / RECIPE_FILE, remedy=remedy):
            check_sealed(folder / RECIPE_FILE, remedy=remedy)
            return made_with
        raise DamagedError(f"{folder / RECIPE_FILE} is damaged (it is empty); {remedy}")
    except FileNotFoundError:
        if folder.is_dir() and any(not path.name.endswith((DRAFT, SEAL)) for path in folder.iterdir()):
            raise DamagedError(f"{folder / RECIPE_FILE} is missing; {remedy}") from None
        return None
