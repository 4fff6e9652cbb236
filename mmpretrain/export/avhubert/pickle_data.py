"""Reads a pickle as data: the opcodes build plain values and inert placeholders, and nothing is imported or called.

This is not Python's unpickler with some names forbidden: there is no code here that could call anything that a file
names. Whatever a file says of a class, a function or its arguments ends as text and values in a `Placeholder`.

A file is of anybody. `MAX_OPCODES` and `MAX_BYTES` bound what is made of it; nothing here or in what reads the values
goes down into nested ones, prints them or hashes them, so that their depth does not matter and what they share is not
multiplied. What messages say of a value is `shown`.
"""

from __future__ import annotations

import dataclasses
import pickletools
import struct
import warnings
from collections.abc import Callable
from io import BytesIO
from typing import Any, BinaryIO

CONSTANTS = frozenset((
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
))  # fmt: skip
FIXED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
NO_EFFECT = frozenset(("PROTO", "FRAME", "STOP"))
PUT, GET = frozenset(("PUT", "BINPUT", "LONG_BINPUT")), frozenset(("GET", "BINGET", "LONG_BINGET"))
ORDERED_DICT = "collections.OrderedDict"  # the one class that becomes what it is: a dict
MAX_OPCODES = 1_000_000  # about 2 s and 300 MB; an AV-HuBERT Large with its optimizer's state has about 60,000
MAX_BYTES = 2**26  # of one pickle, whose texts are most of it; the tensors lie elsewhere
MAX_INT = 2**63  # of keys and memos; Python's hash of larger ones can be chosen so that all collide
SHOWN = 120  # characters of a value in a message
BROKEN = (ValueError, LookupError, TypeError, AttributeError, OverflowError, MemoryError, struct.error)


@dataclasses.dataclass(eq=False, repr=False, slots=True)
class Placeholder:
    """Stands for an object of a class, or the result of a function, that the file names `name` ("module.name")."""

    name: str
    args: tuple = ()  # that it would have been called with
    state: Any = None  # that it would have been given: mostly its attributes, a dict
    items: dict | None = None  # that would have been set in it
    elements: list | None = None  # that would have been appended to it

    def __repr__(self) -> str:
        return f"<{_cut(self.name)}>"


def shown(value: Any) -> str:
    """What a message says of a value of a file: one line, short however much there is, nothing of what it contains."""
    if isinstance(value, Placeholder):
        return repr(value)
    if isinstance(value, str | bytes):
        return repr(value[:SHOWN]) + "..." * (len(value) > SHOWN)
    if isinstance(value, int) and abs(value) >= MAX_INT:
        return f"a number of {value.bit_length()} bits"
    return repr(value) if value is None or isinstance(value, int | float) else f"a {type(value).__name__}"


def _cut(text: str) -> str:
    return ascii(text[:SHOWN])[1:-1] + "..." * (len(text) > SHOWN)


def read_pickle(stream: BinaryIO, persistent: Callable[[Any], Any] | None = None) -> Any:
    """The value of the pickle that begins at the stream's position; the stream is left behind its end.

    persistent: makes what stands for a persistent id, default a `Placeholder`. Sets come as lists. Raises ValueError
    for what is no whole pickle, or one beyond the bounds.
    """
    machine = _Machine(persistent or (lambda pid: Placeholder("persistent id", (pid,))))
    start = stream.tell()
    data = stream.read(MAX_BYTES)
    pickled = BytesIO(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in the texts of a damaged file
            for count, (opcode, arg, _) in enumerate(pickletools.genops(pickled), start=1):
                if count > MAX_OPCODES:
                    raise ValueError(f"it has more than {MAX_OPCODES} opcodes")
                machine.execute(opcode.name, arg)
        value = machine.stack.pop()
    except BROKEN as error:
        how = "damaged or cut off" if len(data) < MAX_BYTES else f"damaged or larger than {MAX_BYTES} bytes"
        raise ValueError(f"its pickle is {how} ({_cut(str(error)) or type(error).__name__})") from error
    stream.seek(start + pickled.tell())
    return value


class _Machine:
    def __init__(self, persistent: Callable[[Any], Any]):
        self.stack: list[Any] = []
        self.marks: list[int] = []  # sizes of the stack
        self.memo: dict[int, Any] = {}
        self.persistent = persistent

    def execute(self, name: str, arg: Any) -> None:
        stack = self.stack
        if name in CONSTANTS:
            stack.append(arg)
        elif name in FIXED:
            stack.append(FIXED[name])
        elif name in PUT:
            if not 0 <= arg < MAX_INT:
                raise ValueError(f"its memo has an entry {shown(arg)}")
            self.memo[arg] = stack[-1]
        elif name in GET:
            stack.append(self.memo[arg])
        elif name not in NO_EFFECT:
            method = getattr(self, f"_{name.lower()}", None)
            if method is None:
                raise ValueError(f"opcode {name} has no place in a file of torch.save")
            method(arg)

    def _take(self, count: int) -> list[Any]:
        values = [self.stack.pop() for _ in range(count)]
        return values[::-1]

    def _take_to_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _mark(self, _) -> None:
        self.marks.append(len(self.stack))

    def _pop_mark(self, _) -> None:
        self._take_to_mark()

    def _pop(self, _) -> None:
        if self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            self.stack.pop()

    def _dup(self, _) -> None:
        self.stack.append(self.stack[-1])

    def _memoize(self, _) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    # Containers.

    def _tuple(self, _) -> None:
        self.stack.append(tuple(self._take_to_mark()))

    def _tuple1(self, _) -> None:
        self.stack.append(tuple(self._take(1)))

    def _tuple2(self, _) -> None:
        self.stack.append(tuple(self._take(2)))

    def _tuple3(self, _) -> None:
        self.stack.append(tuple(self._take(3)))

    def _empty_list(self, _) -> None:
        self.stack.append([])

    _empty_set = _empty_list

    def _list(self, _) -> None:
        self.stack.append(self._take_to_mark())

    _frozenset = _list

    def _append(self, _) -> None:
        self._extend(self._take(1))

    def _appends(self, _) -> None:
        self._extend(self._take_to_mark())

    _additems = _appends

    def _extend(self, values: list[Any]) -> None:
        into = self.stack[-1]
        if isinstance(into, Placeholder):
            into.elements = into = [] if into.elements is None else into.elements
        into.extend(values)

    def _empty_dict(self, _) -> None:
        self.stack.append({})

    def _dict(self, _) -> None:
        values = self._take_to_mark()
        self.stack.append({})
        self._update(values)

    def _setitem(self, _) -> None:
        self._update(self._take(2))

    def _setitems(self, _) -> None:
        self._update(self._take_to_mark())

    def _update(self, values: list[Any]) -> None:
        into = self.stack[-1]
        if isinstance(into, Placeholder):
            into.items = into = {} if into.items is None else into.items
        for key, value in zip(values[::2], values[1::2], strict=True):
            # Hashing what is nested as deep as a file likes could end the process.
            atom = key is None or isinstance(key, str | float | bytes | Placeholder)
            atom |= isinstance(key, int) and abs(key) < MAX_INT
            into[key if atom else Placeholder("key", (key,))] = value

    # What would import or call something.

    def _global(self, name: str) -> None:
        self.stack.append(Placeholder(name.replace(" ", ".", 1)))

    def _stack_global(self, _) -> None:
        self.stack.append(Placeholder(".".join(self._take(2))))

    def _reduce(self, _) -> None:
        function, args = self._take(2)
        self.stack.append(_result(function, args))

    _newobj = _reduce

    def _newobj_ex(self, _) -> None:
        cls, args, options = self._take(3)
        self.stack.append(_result(cls, (args, options)))  # not one by one: many could share the same long `args`

    def _obj(self, _) -> None:
        cls, *args = self._take_to_mark()
        self.stack.append(_result(cls, tuple(args)))

    def _inst(self, name: str) -> None:
        self.stack.append(Placeholder(name.replace(" ", ".", 1), tuple(self._take_to_mark())))

    def _build(self, _) -> None:
        (state,) = self._take(1)
        if isinstance(self.stack[-1], Placeholder):
            self.stack[-1].state = state
        elif not isinstance(self.stack[-1], dict):  # attributes of an OrderedDict are of no use
            raise ValueError(f"a {type(self.stack[-1]).__name__} has no state")

    def _persid(self, pid: str) -> None:
        self.stack.append(self.persistent(pid))

    def _binpersid(self, _) -> None:
        self.stack.append(self.persistent(*self._take(1)))


def _result(function: Any, args: Any) -> Any:
    name = function.name if isinstance(function, Placeholder) else type(function).__name__
    if name == ORDERED_DICT and args == ():
        return {}
    return Placeholder(name, args if isinstance(args, tuple) else (args,))
