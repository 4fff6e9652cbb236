"""A stage is a folder that is whole or not: it has `result.json`, written last, or it is taken up where it stopped."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmpretrain.config import fingerprint
from mmpretrain.observe.progress import log
from mmpretrain.observe.summary import duration

RESULT_FILE = "result.json"
RECIPE_FILE = "recipe.json"
ELAPSED_FILE = "elapsed_sec.json"


def run_stage(
    workdir: Path, name: str, recipe: Mapping[str, Any], work: Callable[[Path], dict[str, Any]]
) -> dict[str, Any]:
    """Returns the result of stage `name`: what an earlier run left, or else what `work(folder)` returns now.

    recipe: all that decides the result, flat. The result gets `wall_time_sec`, summed over interrupted attempts (the
    time of one that was killed outright is lost). Raises ValueError if the folder was made with another recipe.
    """
    folder = workdir / name
    _check_recipe(folder, name, recipe)
    if (folder / RESULT_FILE).exists():
        log(f"{name}: done already")
        return read_result(workdir, name)
    write_json(folder / RECIPE_FILE, dict(recipe))
    earlier = json.loads((folder / ELAPSED_FILE).read_text()) if (folder / ELAPSED_FILE).exists() else 0.0
    log(f"{name}: {'taken up again' if earlier else 'started'} in {folder}")
    start = time.monotonic()
    try:
        result = work(folder)
    finally:
        elapsed = earlier + time.monotonic() - start
        write_json(folder / ELAPSED_FILE, elapsed)
    write_json(folder / RESULT_FILE, result | {"wall_time_sec": round(elapsed, 1)})
    log(f"{name}: finished in {duration(elapsed)}")
    return read_result(workdir, name)


def read_result(workdir: Path, name: str) -> dict[str, Any]:
    """The result of a stage that is whole. Raises FileNotFoundError saying what to run otherwise."""
    file = workdir / name / RESULT_FILE
    if not file.exists():
        raise FileNotFoundError(f"stage {name} of {workdir} is not finished; run it first (or all: `mmpretrain run`)")
    return json.loads(file.read_text())


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".tmp")
    draft.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(draft, path)


def _check_recipe(folder: Path, name: str, recipe: Mapping[str, Any]) -> None:
    if not (folder / RECIPE_FILE).exists():
        return
    made_with = json.loads((folder / RECIPE_FILE).read_text())
    if fingerprint(made_with) == fingerprint(recipe):
        return
    missing = object()
    changed = [key for key in {**made_with, **recipe} if made_with.get(key, missing) != recipe.get(key, missing)]
    shown = ", ".join(f"{key} was {made_with.get(key)!r} and is {recipe.get(key)!r}" for key in changed[:4])
    raise ValueError(
        f"{folder} was made with another recipe ({shown}{', ...' if len(changed) > 4 else ''}); go back to it, "
        f"give another --config.workdir, or remove {folder}"
    )
