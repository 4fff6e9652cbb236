"""What a command of `mmpretrain` declares beside itself, and the checks and help that all commands share.

A command is a module of `stages/` or `tools/` with a `COMMAND` in it; the package names it in its `COMMANDS`.
Does without JAX.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpretrain.config import RunConfig
from mmpretrain.config.checks import check
from mmpretrain.files import check_local
from mmpretrain.run.paths import check_paths

if TYPE_CHECKING:
    from mmpretrain.run.run import Run

RECIPE = "--config=RECIPE"
MAX_FIRST = 40  # characters of the first of two columns
WIDTH = 118  # of the help


@dataclasses.dataclass(frozen=True)
class Option:
    """--NAME of a command.

    kind: int, str, bool, list (a text that may be given several times), or the words to choose from. value: what stands
    for its value in the usage. required: the command cannot do without it. lower: the least value of an int.
    resolve: (command's name, value or None, recipe) -> what the command gets in place of the value; raises ValueError.
    """

    name: str
    kind: type | tuple[str, ...]
    help: str
    value: str = ""
    required: bool = False
    lower: int | None = None
    resolve: Callable[[str, Any, RunConfig], Any] | None = None

    @property
    def shown(self) -> str:
        """As it is given: --step=S."""
        value = self.value or ("|".join(self.kind) if isinstance(self.kind, tuple) else "")
        return f"--{self.name}={value}" if value else f"--{self.name}"


@dataclasses.dataclass(frozen=True)
class Argument:
    """The file or folder that a command is given instead of a recipe, or several. name: as the usage shows them.

    count: how many; None: one or more. addresses: whether it may lie in an object store, where `addresses.Place` reads.
    """

    name: str
    help: str
    count: int | None = 1
    addresses: bool = False

    def takes(self, number: int) -> bool:
        return number > 0 if self.count is None else number == self.count


@dataclasses.dataclass(frozen=True)
class Given:
    """What the user gave, checked. config: the recipe with its overrides. options: by name, None where not given.

    paths: as many as the command takes, no recipe. at_end: what is closed when the command has ended, in all processes.
    """

    command: Command
    config: RunConfig | None
    paths: tuple[Path, ...]
    options: Mapping[str, Any]
    at_end: contextlib.ExitStack = dataclasses.field(default_factory=contextlib.ExitStack)

    def __getitem__(self, option: str) -> Any:
        return self.options[option]

    @property
    def path(self) -> Path:
        """Of a command that takes one."""
        return self.paths[0]

    def begin(self) -> Run:
        """The run of the recipe, whose folder is this command's alone until it ends, after its first lines are logged.

        Raises HeldError, a ValueError, where another command has the folder.
        """
        from mmpretrain.run.owning import owned
        from mmpretrain.run.preparing import prepare_missing

        prepare_missing(self.config.data.corpora)
        run = self.look()
        self.at_end.enter_context(owned(run.workdir, [corpus.path for corpus in self.config.data.corpora]))
        run.announce()
        return run

    def look(self) -> Run:
        """The run of the recipe, for a command that leaves what other commands write as it is."""
        from mmpretrain.run.run import Run

        return Run(
            self.config,
            accept_changes=bool(self.options.get(ACCEPT_CHANGES.name)),
            profile=self.options.get(PROFILE.name),
        )


@dataclasses.dataclass(frozen=True)
class Command:
    """`mmpretrain NAME`, in the module of that name with _ for - and blanks.

    summary: one line for the list of all commands. takes: what it is given; None: a recipe. recipe_at: reads the recipe
    that lies in what it is given, for a command that works as a process of a run. details: paragraphs of its own help.
    examples: command lines, each with a "  # remark" if it needs one.
    instead: the same command when it is given a file or folder in place of a recipe.
    """

    name: str
    summary: str
    run: Callable[[Given], None]
    options: tuple[Option, ...] = ()
    takes: Argument | None = None
    recipe_at: Callable[[Path], RunConfig] | None = None
    examples: tuple[str, ...] = ()
    details: tuple[str, ...] = ()
    instead: Command | None = None

    @property
    def forms(self) -> tuple[Command, ...]:
        return (self, self.instead) if self.instead else (self,)

    @property
    def all_options(self) -> dict[str, Option]:
        """Those of all forms, by name."""
        return {option.name: option for form in reversed(self.forms) for option in form.options}

    @property
    def usage(self) -> str:
        options = [option.shown if option.required else f"[{option.shown}]" for option in self.options]
        overrides = [] if self.takes else ["[--config.FIELD=VALUE ...]"]
        given = [self.takes.name] * (self.takes.count != 0) if self.takes else [RECIPE]
        return " ".join(["mmpretrain", self.name, *given, *options, *overrides])

    @property
    def line(self) -> str:
        """The summary, with what the command must be given besides a recipe."""
        needs = [option.shown for option in self.options if option.required]
        if self.takes and self.takes.count != 0:
            needs = [" ".join([self.takes.name, *needs]), "no recipe"]
        return self.summary + (f" ({', '.join(needs)})" if needs else "")


def module_name(command: str) -> str:
    return command.replace("-", "_").replace(" ", "_")


def read_given(command: Command, config: RunConfig | None, paths: Sequence[str], values: Mapping[str, Any]) -> Given:
    """Checks what is given to a command. values: the options, None where not given. Raises ValueError."""
    form = command.instead if command.instead and paths else command
    if form.takes:
        lacks = any(option.required and values[option.name] is None for option in form.options)
        if not form.takes.takes(len(paths)) or config is not None or lacks:
            what = "" if form.takes.count == 0 else f"; {form.takes.name} is {form.takes.help}"
            raise ValueError(f"the command is `{form.usage}`, without a recipe{what}")
        for path in () if form.takes.addresses else paths:
            check_local(form.takes.name, path)
    elif paths:
        raise ValueError(f"unexpected argument {paths[0]!r}; overrides look like --config.seed=7")
    elif config is None:
        raise ValueError(f"no recipe; give one with {RECIPE}, e.g. --config=demo")
    for name, value in values.items():
        if value is not None and name not in {option.name for option in form.options}:
            other = next(other for other in command.forms if other is not form)
            where = "" if form.takes else "; with a recipe, everything is written under --config.workdir"
            raise ValueError(f"--{name}={value} is for `{other.usage}`{where}")
    for name, value in values.items():
        for each in value if isinstance(value, list) else [value]:
            check_local(f"--{name}", each if isinstance(each, str) else "")
    if form.recipe_at is not None:
        config = form.recipe_at(Path(paths[0]))
    if config is not None:
        check(config)
        check_paths(config)
    return Given(
        form, config, tuple(map(Path, paths)), {o.name: _resolve(form, o, values[o.name], config) for o in form.options}
    )


def _resolve(command: Command, option: Option, value: Any, config: RunConfig | None) -> Any:
    if option.resolve is not None:
        return option.resolve(command.name, value, config)
    if option.required and value is None:
        raise ValueError(f"{command.name} needs {option.shown}: {option.help}")
    if isinstance(option.kind, tuple) and value is not None and value not in option.kind:
        raise ValueError(f"--{option.name}={value}; it must be one of {', '.join(option.kind)}")
    return value


def _one_round(command: str, value: int | None, config: RunConfig) -> int:
    rounds = len(config.rounds)
    if value is None or value > rounds:
        raise ValueError(f"--round={value}; {command} needs --round=1 to --round={rounds}")
    return value


def _some_rounds(command: str, value: str | None, config: RunConfig) -> range | None:
    rounds = len(config.rounds)
    of = f"a round or the first and last of some, of 1 to {rounds}, e.g. --rounds=2-3"
    return None if value is None else _first_to_last("rounds", value, of, rounds)


def _some_steps(command: str, value: str | None, config: RunConfig) -> range | None:
    of = "a step or the first and last of some, e.g. --profile=100-105"
    return None if value is None else _first_to_last("profile", value, of)


def _first_to_last(option: str, text: str, wanted: str, count: int | None = None) -> range:
    """What "2" or "2-3" stands for, counted from 1, to `count` at most."""
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last or (count is not None and last > count):
        raise ValueError(f"--{option}={text}: {wanted}")
    return range(first, last + 1)


# What several commands take.
NOTHING = Argument("", "nothing", count=0)
RUN = Argument("RUN", "the folder of a run, which --config.workdir names")
ACCEPT_CHANGES = Option("accept_changes", bool, "go on with another recipe than that of the stages that are begun")
PROFILE = Option("profile", str, "the steps of every training stage to trace", "100-105", resolve=_some_steps)
ROUND = Option("round", int, "the round, from 1", "N", required=True, lower=1, resolve=_one_round)
ROUNDS = Option("rounds", str, "the rounds to walk, all by default", "2-3", resolve=_some_rounds)


def command_help(command: Command) -> str:
    """What `mmpretrain COMMAND --help` prints."""
    blocks = ["\n".join(textwrap.fill(form.usage, WIDTH, subsequent_indent="    ") for form in command.forms)]
    blocks += ["\n".join(_sentence(form.summary) for form in command.forms)]
    blocks += [textwrap.fill(paragraph, WIDTH) for paragraph in command.details]
    rows = [(form.takes.name, form.takes.help) for form in command.forms if form.takes and form.takes.count != 0]
    if command.takes is None:
        rows += [(RECIPE, "a file, or a name that `mmpretrain recipes` lists; RECIPE:VARIANT where it has variants")]
        rows += [("--config.FIELD=VALUE", "any field of it; `mmpretrain recipes show` lists them")]
    rows += [(option.shown, option.help) for option in command.all_options.values()]
    blocks += ["\n".join(["options:", *table(rows)])] if rows else []
    if command.examples:
        blocks += ["\n".join(["examples:", *example_lines(command.examples)])]
    return "\n\n".join([*blocks, "`mmpretrain --help` is about all commands: several processes, exit codes."]) + "\n"


def example_lines(examples: Sequence[str]) -> list[str]:
    """With what is said about them one below the other."""
    parts = [example.partition("  # ") for example in examples]
    width = max((len(command) for command, sign, _ in parts if sign), default=0)
    return [f"  {command:{width}}{sign}{remark}" if sign else f"  {command}" for command, sign, remark in parts]


def table(rows: Sequence[tuple[str, str]], width: int = 0) -> list[str]:
    """Lines of two columns; beside a long first one the second begins a line. width: the least of the first."""
    width = max([width, *(len(first) for first, _ in rows if len(first) <= MAX_FIRST)])
    return [
        f"  {first:{width}}  {second}" if len(first) <= width else f"  {first}\n  {'':{width}}  {second}"
        for first, second in rows
    ]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text.endswith(".") else ".")
