"""What the commands and export formats declare: each is found by its name, and by nothing but one list."""

import importlib
import pkgutil
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mmpretrain import export, predict, stages, tools
from mmpretrain.__main__ import PROCESS_OPTIONS
from mmpretrain.run.command import MAX_FIRST, module_name, table
from mmpretrain.run.shipped import shipped_recipes

ROOT = Path(__file__).parents[1]
NAMES = [(room, name) for room in (stages, predict, tools) for name in room.COMMANDS]


def declared(package, attribute) -> dict:
    """What the modules of a package declare under that name, by module."""
    found = {}
    for module in pkgutil.iter_modules(package.__path__):
        value = getattr(importlib.import_module(f"{package.__name__}.{module.name}"), attribute, None)
        found |= {module.name: value} if value is not None else {}
    return found


def load(room, name):
    return importlib.import_module(f"{room.__name__}.{module_name(name)}").COMMAND


@pytest.mark.parametrize("room", [stages, predict, tools], ids=lambda room: room.__name__)
def test_every_module_with_a_command_is_listed_and_the_reverse(room):
    commands = {command.name: module for module, command in declared(room, "COMMAND").items()}
    assert commands == {name: module_name(name) for name in room.COMMANDS}


def test_every_export_format_is_listed_and_the_reverse():
    formats = {module: kind.name for module, kind in declared(export, "FORMAT").items()}
    assert formats == {name: name for name in export.FORMATS}
    assert all(export.find_format(name).name == name for name in export.FORMATS)


@pytest.mark.parametrize(("room", "name"), NAMES, ids=[name for _, name in NAMES])
def test_a_command_says_all_of_what_it_takes(room, name):
    command = load(room, name)
    options = list(command.all_options.values())
    assert all(option.help for option in options)
    assert all(option.shown.endswith(f"={option.value}") for option in options if option.value)
    assert not {option.name for option in options} & {option.name for option in PROCESS_OPTIONS}
    for example in command.examples:
        program, *words = shlex.split(example, comments=True)
        assert (program, " ".join(words[: len(name.split())])) == ("mmpretrain", name)
        rest = [word.removeprefix("--").partition("=") for word in words[len(name.split()) :] if word.startswith("--")]
        assert {word for word, _, _ in rest if not word.startswith("config")} <= set(command.all_options)
        recipes = [recipe for word, _, recipe in rest if word == "config"]
        assert set(recipes) <= {recipe.rpartition("/")[2] for recipe in shipped_recipes()}, "not there when installed"


def test_a_long_option_leaves_the_column_of_the_others_where_it_is():
    long = "--method=" + MAX_FIRST * "x"
    assert table([("--a=B", "one"), (long, "two")]) == ["  --a=B  one", f"  {long}\n         two"]
    assert table([(long, "alone")]) == [f"  {long}\n    alone"]


@pytest.mark.parametrize(
    "arguments", [["status", "no_such_run"], ["status"], ["stauts"], ["targets", "--config=no_such_recipe.py"]]
)
def test_only_the_module_of_the_command_is_imported(arguments):
    code = f"""
import contextlib, sys
from mmpretrain.__main__ import main
with contextlib.suppress(SystemExit):
    main({arguments!r})
commands = {[f"{room.__name__}.{module_name(name)}" for room, name in NAMES]!r}
print(*[name for name in commands if name in sys.modules], "jax" in sys.modules)
"""
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    if arguments[0] == "targets":
        assert "mmpretrain.stages.targets" in printed
        assert "mmpretrain.tools" not in printed
    else:
        assert printed.split() == ["mmpretrain.tools.status"] * (arguments[0] == "status") + ["False"]


def test_no_command_looks_for_devices_before_its_processes_have_met():
    code = f"""
import importlib
for name in {[f"{room.__name__}.{module_name(name)}" for room, name in NAMES]!r}:
    importlib.import_module(name)
from jax._src import xla_bridge
raise SystemExit(xla_bridge.backends_are_initialized())
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
