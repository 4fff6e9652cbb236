"""Reads a compiled program, as XLA's text: its collectives by mesh axis, and the bytes that go through memory.

All figures are of one device and one run of the program. What stands in a loop counts as often as the loop turns; of
branches the one counts that does most, such as that of a layer that is not dropped.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

import numpy as np

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\](\{[^}]*\})?")
_NOTHING_MOVES = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all",
    "partition-id", "optimization-barrier", "custom-call",
}  # fmt: skip
_LIBRARY = 'custom_call_target="__cu'  # a product, convolution or attention by cuBLAS or cuDNN


@dataclasses.dataclass(frozen=True)
class Collective:
    """One kind of exchange over groups of `group_size` devices that differ in their place on `axes` of the mesh.

    payload_bytes: of the whole array on one device: the result of an all-gather, the operand of any other. count: how
    many exchanges that is in a step. in_series: how many of them are in the step's longest chain of exchanges of which
    each waits for the one before; the others can start together with these.
    """

    kind: str
    axes: tuple[str, ...]
    group_size: int
    payload_bytes: float
    count: float = dataclasses.field(default=0.0, compare=False)
    in_series: float = dataclasses.field(default=0.0, compare=False)


Kind = tuple[str, tuple[str, ...], int]  # kind, axes and group size of a `Collective`
Chain = Mapping[Kind, float]  # exchanges of which each waits for the one before


@dataclasses.dataclass(frozen=True)
class Instruction:
    name: str
    type: str
    opcode: str
    rest: str  # operands and attributes
    is_root: bool


class Program:
    """The computations of a program, and how often each is run."""

    def __init__(self, text: str):
        self.computations, self._entry = _computations(text)
        self.runs: dict[str, float] = collections.defaultdict(float)
        self.fused: set[str] = set()
        self._count(self._entry, 1.0, fused=False)

    def collectives(self, mesh_shape: Mapping[str, int]) -> list[Collective]:
        """All exchanges between devices, each as often as it is made. mesh_shape: sizes of the axes, in order."""
        payloads: dict[Kind, float] = collections.defaultdict(float)
        counts: dict[Kind, float] = collections.defaultdict(float)
        for name, instructions in self.computations.items():
            if not self.runs[name]:
                continue
            for instruction in instructions:
                if kind := self._exchange(name, instruction, mesh_shape):
                    payloads[kind] += self.runs[name] * _payload(instruction, kind[2])
                    counts[kind] += self.runs[name]
        chain = self._longest_chain(self._entry, mesh_shape, {})
        return [Collective(*kind, payloads[kind], counts[kind], chain.get(kind, 0.0)) for kind in sorted(payloads)]

    def _exchange(self, name: str, instruction: Instruction, mesh_shape: Mapping[str, int]) -> Kind | None:
        """What an instruction of the computation `name` starts between devices; None: nothing."""
        kind = instruction.opcode.removesuffix("-start")
        if kind not in KINDS or not _starts_collectives(name, self.computations[name], name in self.fused):
            return None
        axes, size = _axes(_groups(instruction.rest), mesh_shape)
        if size == 1:
            return None
        # How a TPU's fusion is called that keeps a part of the sum.
        return "reduce-scatter" if name.startswith("all-reduce-scatter") else kind, axes, size

    def _longest_chain(self, name: str, mesh_shape: Mapping[str, int], known: dict[str, Chain]) -> Chain:
        """The most exchanges in a computation of which each needs the one before. A loop's turns need each other."""
        if name in known:
            return known[name]
        chains: dict[str, Chain] = {}  # up to and with each instruction
        for instruction in self.computations[name]:
            before = [chains[operand] for operand in _operands(instruction.rest) if operand in chains]
            chain = max(before, key=_length, default={})
            if kind := self._exchange(name, instruction, mesh_shape):
                chain = _joined(chain, {kind: 1.0})
            elif inner := [self._longest_chain(called, mesh_shape, known) for called in _callees(instruction)]:
                turns = 1
                if instruction.opcode == "while":
                    turns = self._trips(instruction, _called(instruction.rest, "condition")[0])
                chain = _joined(chain, max(inner, key=_length), turns)
            chains[instruction.name] = chain
        known[name] = max(chains.values(), key=_length, default={})
        return known[name]

    def traffic_bytes(self) -> float:
        """Bytes through the device's main memory if every array outside fusions is written once and read once.

        An update in place counts as the part that is new; arrays that stay on the chip count as nothing.
        """
        total = 0.0
        for name, instructions in self.computations.items():
            if name in self.fused or not self.runs[name]:
                continue
            for instruction in instructions:
                opcode = instruction.opcode
                if name == self._entry and opcode == "parameter":
                    total += _bytes(instruction.type)  # read
                elif (opcode not in _NOTHING_MOVES or _LIBRARY in instruction.rest) and not opcode.endswith("-start"):
                    total += 2 * self.runs[name] * self._written(instruction, instructions)
        return total

    def _written(self, instruction: Instruction, among: list[Instruction]) -> float:
        """Bytes of the instruction's result that are new, in main memory."""
        if instruction.opcode == "dynamic-update-slice":
            return self._updated(instruction, among) if not _on_chip(instruction.type) else 0.0
        if instruction.opcode == "custom-call":  # the last array is the library's to work in
            return _bytes("".join(_elements(instruction.type)[:-1]))
        if instruction.opcode != "fusion":
            return _bytes(instruction.type, main_memory=True)
        inner = self.computations[_called(instruction.rest, "calls")[0]]
        root = next(i for i in inner if i.is_root)
        results = (
            [i for name in _operands(root.rest) for i in inner if i.name == name] if root.opcode == "tuple" else [root]
        )
        places = [match.group(0) for match in _ARRAY.finditer(instruction.type)]
        total = 0.0
        for result, place in zip(results, places, strict=False):
            while result.opcode == "bitcast":
                result = next(i for i in inner if i.name == _operands(result.rest)[0])
            if _on_chip(place):
                continue
            total += self._updated(result, inner) if result.opcode == "dynamic-update-slice" else _bytes(place)
        return total

    def _updated(self, update: Instruction, among: list[Instruction]) -> float:
        part = _operands(update.rest)[1]
        return next(_bytes(i.type) for i in among if i.name == part)

    def _count(self, name: str, times: float, *, fused: bool) -> None:
        self.runs[name] += times
        if fused:
            self.fused.add(name)
        for instruction in self.computations[name]:
            turns = 1
            if instruction.opcode == "while":
                turns = self._trips(instruction, _called(instruction.rest, "condition")[0])
            callees = _callees(instruction)
            if instruction.opcode == "conditional":
                callees = [max(callees, key=self._size)]
            for called in callees:
                self._count(called, times * turns, fused=fused or instruction.opcode == "fusion")

    def _size(self, name: str) -> int:
        """The instructions of a computation and of those that it runs."""
        return sum(1 + sum(map(self._size, _callees(each))) for each in self.computations[name])

    def _trips(self, loop: Instruction, condition: str) -> int:
        """How often a loop turns: what XLA says, else the bound in its condition. JAX's loops count from 0 by 1."""
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', loop.rest):
            return int(known[1])
        bounds = {int(n) for n in self._integer_constants(condition)}
        return max(bounds, default=1)

    def _integer_constants(self, name: str) -> Iterator[str]:
        for instruction in self.computations[name]:
            if instruction.opcode == "constant" and re.match(r"[su]\d+\[\]", instruction.type):
                yield instruction.rest.split(")")[0]
            elif instruction.opcode == "fusion":
                yield from self._integer_constants(_called(instruction.rest, "calls")[0])


def _computations(text: str) -> tuple[dict[str, list[Instruction]], str]:
    computations: dict[str, list[Instruction]] = {}
    entry = current = ""
    for line in text.splitlines():
        if heading := re.match(r"(ENTRY )?%?([^\s(]+) \(.*\{$", line):
            current = heading[2]
            computations[current] = []
            entry = current if heading[1] else entry
        elif match := re.match(r"\s+(ROOT )?%?([^\s=]+) = (.*)", line):
            type_, rest = _split_type(match[3])
            opcode, _, rest = rest.partition("(")
            computations[current].append(Instruction(match[2], type_, opcode, rest, bool(match[1])))
    return computations, entry


def _split_type(text: str) -> tuple[str, str]:
    """The type before an opcode: up to a space that is in no bracket."""
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter in "({[") - (letter in ")}]")
        if letter == " " and depth == 0:
            return text[:i], text[i + 1 :]
    return text, ""


def _operands(rest: str) -> list[str]:
    depth, end = 1, 0
    while depth and end < len(rest):
        depth += (rest[end] == "(") - (rest[end] == ")")
        end += 1
    return re.findall(r"%([^\s,()]+)", rest[: end - 1])


def _called(rest: str, attribute: str) -> list[str]:
    found = re.findall(rf"\b(?:{attribute})=(\{{[^}}]*\}}|%?[^\s,]+)", rest)
    return [name.strip().lstrip("%") for names in found for name in names.strip("{}").split(",")]


def _callees(instruction: Instruction) -> list[str]:
    """The computations that an instruction runs; those that combine two numbers of a reduction are not."""
    attribute = {
        "while": "body", "fusion": "calls",
        **dict.fromkeys(
            ("call", "conditional", "async-start"),
            "to_apply|calls|branch_computations|true_computation|false_computation|called_computations",
        ),
    }.get(instruction.opcode)  # fmt: skip
    return _called(instruction.rest, attribute) if attribute else []


def _length(chain: Chain) -> float:
    return sum(chain.values())


def _joined(one: Chain, other: Chain, times: int = 1) -> Chain:
    """Both chains one after the other, the second so many times."""
    if not other:
        return one
    return {kind: one.get(kind, 0.0) + times * other.get(kind, 0.0) for kind in {**one, **other}}


def _on_chip(type_: str) -> bool:
    return bool(re.search(r"S\([1-9]\d*\)", type_))


def _bytes(type_: str, *, main_memory: bool = False) -> float:
    """Of all arrays in a type; main_memory: of those alone that do not stay on the chip."""
    total = 0.0
    for match in _ARRAY.finditer(type_):
        name, bits, dims, layout = match.groups()
        if main_memory and layout and _on_chip(layout):
            continue
        total += (1 if name == "pred" else int(bits) / 8) * math.prod(int(d) for d in dims.split(",") if d)
    return total


def _starts_collectives(name: str, instructions: list[Instruction], fused: bool) -> bool:
    """Whether a collective starts here; a TPU's program repeats it in the fusions that run beside it."""
    if not fused or name.startswith("all-reduce-scatter"):
        return True
    return any(i.opcode == "custom-call" and '"AsyncCollectiveStart"' in i.rest for i in instructions)


def _payload(instruction: Instruction, group_size: int) -> float:
    opcode, type_ = instruction.opcode, instruction.type
    if opcode.endswith("-start") and opcode != "all-reduce-start":  # (operands, results, ...)
        type_ = _elements(type_)[0 if opcode == "reduce-scatter-start" else 1]
    return _bytes(type_) * (group_size if opcode == "reduce-scatter" else 1)


def _elements(type_: str) -> list[str]:
    """The types in a tuple's type."""
    depth, elements = 0, [""]
    for letter in type_[1:-1]:
        depth += (letter in "({[") - (letter in ")}]")
        if letter == "," and depth == 0:
            elements.append("")
        else:
            elements[-1] += letter
    return elements


def _groups(rest: str) -> list[list[int]]:
    """The devices that exchange, by their position in the mesh. Raises ValueError for a form that is not known."""
    if pairs := re.search(r"source_target_pairs=\{(\{[\d,{}]*\})\}", rest):
        return [[int(n) for n in pair.split(",")] for pair in re.findall(r"\{([\d,]+)\}", pairs[1])]
    if listed := re.search(r"replica_groups=\{(\{[\d,{}]*\})\}", rest):
        return [[int(n) for n in group.split(",")] for group in re.findall(r"\{([\d,]+)\}", listed[1])]
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((\S+)\))? \{([^:}]*)\}", rest):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        devices = _iota(mesh[2]) if mesh[2] else np.arange(math.prod(sizes.values()))
        named = [list(sizes).index(name) for name in re.findall(r"'(\w+)'", mesh[3])]
        last = range(-len(named), 0)
        groups = np.moveaxis(devices.reshape(list(sizes.values())), named, last)
        return groups.reshape(-1, math.prod(list(sizes.values())[i] for i in named)).tolist()
    if iota := re.search(r"replica_groups=\[([\d,]+)\]<=(\[\S+)", rest):
        return _iota(iota[2]).reshape([int(n) for n in iota[1].split(",")]).tolist()
    raise ValueError(
        f"the compiled program names the devices of a collective in a form that `plan` cannot read ({rest[-300:]}); "
        "plan with JAX 0.10, or report this form"
    )


def _iota(text: str) -> np.ndarray:
    """`[4,2]T(1,0)`: the numbers from 0 on in that shape, with its dims in that order."""
    dims, order = re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text).groups()
    dims = [int(n) for n in dims.split(",")]
    devices = np.arange(math.prod(dims)).reshape(dims)
    return devices.transpose([int(n) for n in order.split(",")]) if order else devices


def _axes(groups: list[list[int]], mesh_shape: Mapping[str, int]) -> tuple[tuple[str, ...], int]:
    """The mesh axes along which the devices of a group differ, and the size of the groups."""
    places = np.stack([np.stack(np.unravel_index(group, tuple(mesh_shape.values()))) for group in groups])
    differ = (places != places[:, :, :1]).any((0, 2))
    return tuple(axis for axis, differs in zip(mesh_shape, differ, strict=True) if differs), len(groups[0])
