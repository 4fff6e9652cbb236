"""A configuration tree as JSON and back, and the parts of it that stages name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from mmpretrain.config.ranges import check_fields, plain_type, shown
from mmpretrain.config.tree import ModelConfig, RunConfig

Tree = TypeVar("Tree")


def as_dict(config: Any) -> dict[str, Any]:
    """A configuration tree as plain JSON values. What a field for numbers holds is a float, whoever wrote it whole: 20
    in a file and on the command line are one value."""
    return {field.name: _to_json(field.type, getattr(config, field.name)) for field in dataclasses.fields(config)}


def _to_json(kind: Any, value: Any) -> Any:
    kind, _ = plain_type(kind)
    if isinstance(value, tuple | list):
        element = typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else None
        return [_to_json(element, item) for item in value]
    if dataclasses.is_dataclass(value):
        return as_dict(value)
    return float(value) if kind is float and type(value) is int and abs(value) < 2**53 else value


def fields_of(config: RunConfig, *names: str, but: Sequence[str] = ()) -> dict[str, Any]:
    """Some fields of a run, flat: {"data.min_frames": 5, ...}. A name stands for all below it, less what `but` names.

    `data.corpora[*].weight` names the weight of every corpus.
    """
    flat = {path: value for part, tree in as_dict(config).items() for path, value in flatten(tree, part).items()}
    return {path: value for path, value in flat.items() if _is_in(path, names) and not _is_in(path, but)}


def _is_in(path: str, names: Sequence[str]) -> bool:
    patterns = (re.escape(name).replace(r"\[\*\]", r"\[\d+\]") for name in names)
    return any(re.fullmatch(rf"{pattern}([.\[].*)?", path) for pattern in patterns)


def fingerprint(recipe: Mapping[str, Any]) -> str:
    """16 hex digits of a flat recipe."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]


def from_dict(kind: type[Tree], tree: Any) -> Tree:
    """The inverse of `as_dict` for any class of this file.

    Raises ValueError for a field that there is not, and for one with a value of another type or outside its range.
    """
    name = {RunConfig: "", ModelConfig: "model"}.get(kind, kind.__name__)
    config = _from_dict(kind, tree, name)
    check_fields(config, name)
    return config


def _from_dict(kind: type[Tree], tree: Any, path: str) -> Tree:
    if not isinstance(tree, Mapping):
        raise ValueError(f"{path or 'the recipe'}={shown(tree)}; it must be a {kind.__name__}, by its fields")
    known = {field.name: field.type for field in dataclasses.fields(kind)}
    if unknown := sorted(str(name) for name in set(tree) - set(known)):
        raise ValueError(f"unknown field {shown(unknown[0])} of {kind.__name__}; known are {', '.join(sorted(known))}")
    prefix = f"{path}." if path else ""
    return kind(**{name: _from_json(known[name], value, prefix + name) for name, value in tree.items()})


def _from_json(kind: Any, value: Any, path: str) -> Any:
    """What is of another type stays as it is, for `check_fields` to name."""
    kind, _ = plain_type(kind)
    if value is None:
        return None
    if typing.get_origin(kind) is tuple:
        element = typing.get_args(kind)[0]
        if type(value) is not list:
            return value
        return tuple(_from_json(element, item, f"{path}[{i}]") for i, item in enumerate(value))
    return _from_dict(kind, value, path) if dataclasses.is_dataclass(kind) else value


def flatten(tree: Any, prefix: str) -> dict[str, Any]:
    """The leaves of a tree of JSON values by their path: {"data.corpora[0].weight": 1.0, ...}."""
    if isinstance(tree, dict):
        below = [flatten(value, f"{prefix}.{name}") for name, value in tree.items()]
    elif isinstance(tree, list) and tree and isinstance(tree[0], dict):
        below = [flatten(value, f"{prefix}[{i}]") for i, value in enumerate(tree)]
    else:
        return {prefix: tree}
    return {name: value for leaves in below for name, value in leaves.items()}
