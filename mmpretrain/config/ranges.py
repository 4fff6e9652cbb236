"""What a field of the tree may hold: its range stands beside its default, and one walk checks all.

    weight: float = setting(1.0, above(0, most=1e6))

A field of another class of the tree, or of True and False, needs none. What depends on two fields is in `checks.py`
and `task_checks.py`.
"""

# No `from __future__ import annotations`, as in the tree itself.
import dataclasses
import math
import types
import typing
from collections.abc import Iterator
from typing import Any

KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}
SHOWN = 100  # characters of a value in a message
LONGEST_TEXT = 4_096


@dataclasses.dataclass(frozen=True)
class Range:
    """text: as messages say it after "it must be". `holds` is asked about values of the field's type only.

    count: how many elements a tuple may have; None where the field is no tuple.
    """

    text: str
    holds: typing.Callable[[Any], bool]
    count: range | None = None
    distinct: bool = False
    most: float = math.inf  # what is larger is told so, where `text` does not say it


def setting(default: Any, allowed: Range) -> Any:
    """A field with this default, which may hold what is allowed."""
    return dataclasses.field(default=default, metadata={"range": allowed})


def within(least: float, most: float, text: str = "", *, also: tuple[float, ...] = ()) -> Range:
    """From `least` to `most`, both included, or one of `also`."""
    text = text or f"between {_number(least)} and {_number(most)}"
    return Range(text, lambda value: least <= value <= most or value in also)


def above(least: float, *, most: float, text: str = "", also: tuple[float, ...] = ()) -> Range:
    """Greater than `least`, up to `most`, or one of `also`."""
    text = text or f"above {_number(least)} and at most {_number(most)}"
    return Range(text, lambda value: least < value <= most or value in also, most=most)


def below(most: float, *, least: float, text: str = "") -> Range:
    """From `least`, which is included, to `most`, which is not."""
    return Range(text or f"from {_number(least)} to below {_number(most)}", lambda value: least <= value < most)


def one_of(*choices: Any, text: str = "") -> Range:
    """One of these values."""
    return Range(text or "one of " + ", ".join(map(str, choices)), lambda value: value in choices)


def words(text: str = "a text") -> Range:
    """Any text without control characters, e.g. a path or a name that another room knows."""
    return Range(text, lambda value: len(value) <= LONGEST_TEXT and (not value or value.isprintable()))


def plain_word() -> Range:
    """A name that can stand in paths and in other names."""
    return Range('a plain word, e.g. "emotion"', lambda value: len(value) <= SHOWN and value.isidentifier())


def each(element: Range | None, *, least: int = 0, most: int = 10_000, distinct: bool = False, text: str = "") -> Range:
    """A tuple of `least` to `most` elements that are each in a range; without one they are classes of the tree."""
    number = f"{least} or more" if least != 1 else "one or more"
    text = text or (f"{number}, {'each once, ' * distinct}each {element.text}" if element else number)
    return Range(text, element.holds if element else lambda _: True, range(least, most + 1), distinct)


def check_fields(config: Any, name: str = "") -> None:
    """Raises ValueError for the first field below `config` with a value of another type or outside its range.

    name: the path of `config` itself, "" for the root of a tree.
    """
    for field in dataclasses.fields(config):
        path = f"{name}.{field.name}" if name else field.name
        _check(path, field.type, field.metadata.get("range"), getattr(config, field.name))


def range_text(kind: type, path: str) -> str:
    """What the field `path` (rounds[0].num_steps) of a tree may hold, in words; "" where there is no such field."""
    wanted, allowed = kind, None
    for part in path.split("."):
        name, *elements = part.split("[")
        fields = {field.name: field for field in dataclasses.fields(wanted)} if dataclasses.is_dataclass(wanted) else {}
        if name not in fields:
            return ""
        wanted, allowed = plain_type(fields[name].type)[0], fields[name].metadata.get("range")
        if elements and typing.get_origin(wanted) is tuple:
            wanted = typing.get_args(wanted)[0]
    return _wanted(wanted, allowed)


def plain_type(kind: Any) -> tuple[Any, bool]:
    """The type without `| None`, and whether that was there."""
    if isinstance(kind, types.UnionType):
        return typing.get_args(kind)[0], True
    return kind, False


def leaves(kind: type, name: str = "") -> Iterator[tuple[str, Any, Range | None]]:
    """Path, type and range of every field of a class of the tree and of those below; tuples have `[*]`."""
    for field in dataclasses.fields(kind):
        path = f"{name}.{field.name}" if name else field.name
        wanted, _ = plain_type(field.type)
        element = typing.get_args(wanted)[0] if typing.get_origin(wanted) is tuple else None
        if dataclasses.is_dataclass(wanted):
            yield from leaves(wanted, path)
            continue
        yield path, wanted, field.metadata.get("range")
        if dataclasses.is_dataclass(element):
            yield from leaves(element, f"{path}[*]")


def shown(value: Any) -> str:
    """`value` in a message: one line, and no longer than a line."""
    if isinstance(value, int) and not -(10**SHOWN) < value < 10**SHOWN:
        return f"a number of {value.bit_length()} bits"
    text = " ".join(ascii(value).split()) if not isinstance(value, str) else repr(value[: SHOWN + 1])
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _check(path: str, kind: Any, allowed: Range | None, value: Any) -> None:
    wanted, optional = plain_type(kind)
    if value is None and optional:
        return
    if typing.get_origin(wanted) is tuple:
        _check_tuple(path, typing.get_args(wanted)[0], allowed, value)
    elif dataclasses.is_dataclass(wanted):
        if not isinstance(value, wanted):
            raise ValueError(f"{path}={shown(value)}; it must be a {wanted.__name__}")
        check_fields(value, path)
    elif not _is_a(wanted, value) or (allowed is not None and not allowed.holds(value)):
        raise ValueError(f"{path}={shown(value)}; it must be {_wanted(wanted, allowed, value)}")


def _check_tuple(path: str, element: Any, allowed: Range | None, value: Any) -> None:
    whole = isinstance(value, tuple) and (allowed is None or len(value) in allowed.count)
    if whole and not dataclasses.is_dataclass(element):
        whole = all(_is_a(element, item) and (allowed is None or allowed.holds(item)) for item in value)
        whole = whole and (allowed is None or not allowed.distinct or len(set(value)) == len(value))
    if not whole:
        raise ValueError(f"{path}={shown(value)}; it must be {_wanted(tuple[element, ...], allowed, value)}")
    for i, item in enumerate(value if dataclasses.is_dataclass(element) else ()):
        _check(f"{path}[{i}]", element, None, item)


def _is_a(kind: type, value: Any) -> bool:
    if kind is float:  # whole numbers do, infinity and NaN do not
        return isinstance(value, int | float) and not isinstance(value, bool) and not _is_unbounded(value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _is_unbounded(value: float) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _wanted(kind: Any, allowed: Range | None, value: Any = None) -> str:
    """The range, and the type too where `value` is of another or there is none."""
    element = typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else None
    if dataclasses.is_dataclass(kind):
        return f"a {kind.__name__}"
    text = allowed.text if allowed else KINDS.get(kind, "")
    if allowed and isinstance(value, int | float) and value > allowed.most and _number(allowed.most) not in text:
        text = f"{text} and at most {_number(allowed.most)}"
    if element is not None:
        of_type = isinstance(value, tuple) and all(_is_a(element, item) for item in value)
        items = {int: "whole numbers", float: "numbers", str: "texts"}.get(element, f"{element.__name__}s")
        return text if of_type else f"{text} (a tuple of {items})"
    return text if allowed is None or (value is not None and _is_a(kind, value)) else f"{text} ({KINDS[kind]})"


def _number(value: float) -> str:
    return f"{value:_}" if isinstance(value, int) and abs(value) >= 10_000 else f"{value:g}"


def require(holds: bool, field: str, value: Any, wanted: str) -> None:
    """Raises ValueError unless it holds: wanted says what the value must be, and where."""
    if not holds:
        raise ValueError(f"{field}={shown(value)}; it must be {wanted}")


def check_choice(field: str, value: Any, choices: tuple[str, ...]) -> None:
    require(value in choices, field, value, "one of " + ", ".join(choices))
