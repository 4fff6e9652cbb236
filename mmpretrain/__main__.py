"""The command: `mmpretrain COMMAND --config=RECIPE --config.a.b=value`, and a few that take files instead of a recipe.

What each command is called, takes and does stands in its own module, in `stages/`, `predict/` or `tools/`.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # `python -m` put the current folder first, where anybody's code may lie (a numpy.py). Ours is looked for last.
    sys.path[:] = [*sys.path[1:], os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]

import contextlib
import dataclasses
import difflib
import importlib
import multiprocessing
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from mmpretrain import heap, output, predict, stages, tools
from mmpretrain.config import RunConfig
from mmpretrain.parallel import processes, stopping
from mmpretrain.run.collapse import Collapsed
from mmpretrain.run.command import RECIPE, Command, Option, command_help, example_lines, module_name, read_given, table
from mmpretrain.run.recipe_file import read_recipe
from mmpretrain.run.shipped import find_recipe, recipe_folder

MAX_SHOWN = 400  # characters of what was given, in a message
ROOMS = {"stages": stages, "use": predict, "tools": tools}
# Which of its processes this is; see parallel/processes.py.
PROCESS_OPTIONS = (
    Option("coordinator", str, "where process 0 answers", "HOST:PORT"),
    Option("num_processes", int, "of the run", "N"),
    Option("process_id", int, "of this process", "I"),
)

HELP = """mmpretrain COMMAND --config=RECIPE [--config.FIELD=VALUE ...]

Pretrains audio-visual encoders by masked cluster prediction, fine-tunes and exports them. A run is a folder
(--config.workdir); a command that was interrupted is simply given again and continues.

{commands}

examples:
{examples}

`mmpretrain COMMAND --help` says more of one command. A recipe is a file, or the name of one that comes with the program
(`mmpretrain recipes`).

While a run goes on, `mmpretrain status RUN` says how it is doing, and `touch RUN/profile` traces its next five steps,
as --profile=FIRST-LAST does those steps of every training stage (docs/watching.md).

A run of several processes is the same command in each, with --coordinator=HOST:PORT --num_processes=N --process_id=I
(HOST:PORT is process 0's) or with these in MMPRETRAIN_COORDINATOR, MMPRETRAIN_NUM_PROCESSES, MMPRETRAIN_PROCESS_ID;
under srun or mpirun they are found out. SIGTERM and SIGUSR1 make a run save and leave with exit code 75: give the same
command again. Other codes: 2 a mistake in the command or its files, 3 a loss that is no number or explodes (health.*),
4 a collapsed round, 130 Ctrl-C, 141 when nobody reads the output any more (`| head`). A run goes on with another recipe
only where it computes the same, or with --accept_changes.

Any field of the recipe can be set as --config.FIELD=VALUE; `mmpretrain recipes show --config=RECIPE` lists them.
Prepare clips first: `python -m data_prep --help`.
"""


@output.until_unread()
def main(argv: list[str] | None = None) -> None:
    """Runs one command.

    Exits with 2 for what a user can mend, 3 for a loss that is no number or explodes, 4 for a collapsed round, 75 when
    stopped by SIGTERM or SIGUSR1 and saved, 130 when interrupted, 141 when nobody reads the output any more.
    """
    is_process = argv is None
    if is_process:
        heap.keep_freed()
        os.environ["PYTHONSAFEPATH"] = "1"  # the Python of a library's helper does not take code from here either,
        os.environ.setdefault("NUMBA_CACHE_DIR", "")  # nor compiled code from where a file here says
        argv = sys.argv[1:]
    wants_help = not argv or argv[0] == "help" or bool({"-h", "--help"} & set(argv))
    name, arguments = _split(argv[1:] if argv[:1] == ["help"] else argv)
    if wants_help:
        print(command_help(_load(name)) if name in command_names() else _overview(), end="")
        sys.exit(0 if argv else 2)
    try:
        with stopping.listening():
            if name not in command_names():
                raise ValueError(f"unknown command {name!r}; commands are {', '.join(command_names())}"
                                 f"{_nearest(name, command_names())}")  # fmt: skip
            _run(_load(name), arguments)
    except (Exception, KeyboardInterrupt) as error:
        code, line = _end(error)
        if code in (processes.BUG_CODE, output.UNREAD_CODE):
            raise
        print(f"mmpretrain {name}: {line}", file=sys.stderr)
        if is_process and isinstance(error, KeyboardInterrupt):
            _leave(code)
        sys.exit(code)


def _leave(code: int) -> NoReturn:
    """Ends this process and its workers without taking Python down.

    The device may still compute a step that nobody waits for any more, and JAX's own end does not survive that.
    """
    for worker in multiprocessing.active_children():
        worker.terminate()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run(command: Command, arguments: Sequence[str]) -> None:
    config, paths, values = _parse(command, arguments)
    process = [values.pop(option.name) for option in PROCESS_OPTIONS]
    given = read_given(command, config, paths, values)
    if given.config is None and (asked := [o for o, x in zip(PROCESS_OPTIONS, process, strict=True) if x is not None]):
        raise ValueError(f"--{asked[0].name} is for a run of several processes; `{given.command.name}` works in one")
    place = processes.find_place(*process, os.environ)
    if given.config is not None:
        processes.initialize(place, lost_after_sec=given.config.parallel.lost_after_sec)
    with given.at_end, processes.together(_end):
        given.command.run(given)


def _end(error: BaseException) -> tuple[int, str]:
    """The exit code of what ended a run, and a line about it."""
    match error:
        case KeyboardInterrupt():
            return 130, "interrupted; the same command continues"
        case stopping.Stopped():
            return processes.STOPPED_CODE, "stopped and saved; the same command continues"
        case FloatingPointError():
            return 3, output.one_line(error)
        case Collapsed():
            return 4, output.one_line(error)
        case BrokenPipeError() if output.is_unread(error):
            return output.UNREAD_CODE, "nobody reads its output any more"
        case ValueError() | OSError():
            return 2, output.one_line(error)
    return processes.BUG_CODE, f"{type(error).__name__}: {output.one_line(error, output.BRIEF)}"


def command_names() -> list[str]:
    """In the order in which the help shows them."""
    return [name for room in ROOMS.values() for name in room.COMMANDS]


def _split(argv: Sequence[str]) -> tuple[str, list[str]]:
    """The command's name, which may be of two words, and the rest."""
    words = 2 if " ".join(argv[:2]) in command_names() else 1
    return " ".join(argv[:words]), list(argv[words:])


def _load(name: str) -> Command:
    """Imports the module of one command, of which most bring JAX, and of no other."""
    room = next(room for room in ROOMS.values() if name in room.COMMANDS)
    return importlib.import_module(f"{room.__name__}.{module_name(name)}").COMMAND


def _overview() -> str:
    commands = {title: [_load(name) for name in room.COMMANDS] for title, room in ROOMS.items()}
    width = max(map(len, command_names()))
    lists = [
        "\n".join([f"{title}:", *table([(command.name, command.line) for command in some], width)])
        for title, some in commands.items()
    ]
    examples = [example for some in commands.values() for command in some for example in command.examples]
    return HELP.format(commands="\n\n".join(lists), examples="\n".join(example_lines(examples)))


def _parse(command: Command, arguments: Sequence[str]) -> tuple[RunConfig | None, list[str], dict[str, Any]]:
    """The recipe with its overrides, what is no option, and the options, None where not given.

    Raises ValueError for what cannot be read.
    """
    from absl import flags
    from ml_collections import config_flags

    is_recipe = re.compile("--config=").match
    recipes = [find_recipe(argument.removeprefix("--config=")) for argument in arguments if is_recipe(argument)]
    if len(recipes) > 1:
        raise ValueError(f"--config is given {len(recipes)} times ({', '.join(recipes)}); give one recipe")
    values = flags.FlagValues()
    values.set_gnu_getopt()  # options may follow a path
    argv = ["mmpretrain", *(argument for argument in arguments if not is_recipe(argument))]
    config = None
    if recipes:
        with _importable(recipes):
            config = read_recipe(recipes[0])
    define = {int: flags.DEFINE_integer, bool: flags.DEFINE_bool, list: flags.DEFINE_multi_string}
    options = {}
    for option in (*command.all_options.values(), *PROCESS_OPTIONS):
        lower = {"lower_bound": option.lower} if option.kind is int else {}
        make = define.get(option.kind, flags.DEFINE_string)
        options[option.name] = make(option.name, None, option.help, flag_values=values, **lower)
    try:
        if config is not None:
            # The recipe is there before its overrides are read, wherever it was given: they are of its fields.
            holder = config_flags.DEFINE_config_dataclass("config", config, "the recipe", values, argv)
        paths = values(argv)[1:]
    except flags.UnrecognizedFlagError as error:
        if error.flagname.startswith("config.") and not recipes:
            raise ValueError(f"no recipe; give one with {RECIPE}, e.g. --config=demo") from error
        if takers := _takers(error.flagname):
            raise ValueError(f"{error.flagvalue} is for {' and '.join(takers)}, not for {command.name}") from error
        known = [*options, "config"] if recipes else [*options]
        raise ValueError(
            f"unknown option --{error.flagname}{_nearest(error.flagname.partition('.')[0], known)} "
            f"(`mmpretrain {command.name} --help` lists what there is; in: {' '.join(arguments)})"
        ) from error
    except ValueError as error:
        if none := re.match(r"Flag (?P<path>\S+)\.\w+ can not be applied because field \"\w+\" is None", str(error)):
            path = none["path"]
            raise ValueError(f"{path} is None in this recipe; give --config.{path}=build before its fields") from error
        raise
    except Exception as error:
        given, what = " ".join(arguments), _absent(config, arguments) or _explain(error)
        raise ValueError(f"{what} (in: {given[:MAX_SHOWN]}{'...' * (len(given) > MAX_SHOWN)})") from error
    return config and holder.value, paths, {name: flag.value for name, flag in options.items()}


@contextlib.contextmanager
def _importable(recipes: Sequence[str]) -> Iterator[None]:
    """While recipes are read, they may import what lies with them, and those that come with the program.

    What lies with a recipe: in its folder or, where that is a package, in the folder of the package. It comes last in
    the path and leaves it again: what is installed keeps its meaning, and nobody finds other names there later.
    """
    before = list(sys.path)
    for path in [*(path.split(":")[0] for path in recipes), recipe_folder() / "__init__.py"]:
        folder = Path(path).absolute().parent
        while (folder / "__init__.py").exists():
            folder = folder.parent
        sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path[:] = before


def _takers(option: str) -> list[str]:
    """The commands that have an option."""
    return [name for name in command_names() if option in _load(name).all_options]


def _nearest(word: str, known: Sequence[str]) -> str:
    """The end of a message about a word that nobody knows."""
    near = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _absent(config: RunConfig | None, arguments: Sequence[str]) -> str:
    """What an override names of a tuple that has no such element; "" if none does."""
    for path in (argument[9:].partition("=")[0] for argument in arguments if argument.startswith("--config.")):
        value, at = config, ""
        for dot, name, index in re.findall(r"(\.?)(\w+)|\[([^\]]*)\]", path):
            if not name and isinstance(value, tuple):
                if not re.fullmatch(r"-?\d{1,9}", index) or not -len(value) <= int(index) < len(value):
                    there = f"it has {len(value)}, from {at}[0] on" if value else "it has none"
                    return f"--config.{path}: {at} has no element [{index}]; {there}"
                value, at = value[int(index)], f"{at}[{index}]"
            else:
                value, at = getattr(value, name, None), f"{at}{dot}{name}"
    return ""


def _explain(error: Exception) -> str:
    from absl import flags

    from mmpretrain import config

    for wording in (r"Field (?P<field>\w+) not found on dataclass <class '.*\.(?P<kind>\w+)'>",
                    r"Attribute <class '.*\.(?P<kind>\w+)'>\.(?P<field>\w+) does not exist"):  # fmt: skip
        if unknown := re.search(wording, str(error)):
            known = [field.name for field in dataclasses.fields(getattr(config, unknown["kind"]))]
            said = f"unknown field {unknown['field']!r} of {unknown['kind']}; known are {', '.join(known)}"
            return said + _nearest(unknown["field"], known)
    of_field = re.match(r"flag --config\.(?P<path>[^=]+)=(?P<value>.*?): ", str(error), re.DOTALL)
    if of_field and (wanted := config.range_text(config.RunConfig, of_field["path"])):
        return f"{of_field['path']}={config.shown(of_field['value'])}; it must be {wanted}"
    what = "" if isinstance(error, flags.Error) else f"{type(error).__name__}: "
    text = str(error)
    text = text if len(text) <= MAX_SHOWN else f"{text[:80]} ... {text[-MAX_SHOWN:]}"
    return f"{what}{text}; `mmpretrain recipes show --config=RECIPE` lists the fields and what they may hold"


if __name__ == "__main__":
    main()
