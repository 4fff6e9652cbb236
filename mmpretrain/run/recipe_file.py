"""Reads a recipe's file, which is the user's program: whatever is wrong with it is one line that names it."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from importlib.machinery import SourceFileLoader
from types import ModuleType

from mmpretrain.config import RunConfig, shown
from mmpretrain.output import BRIEF, one_line

MODULE = "config_config"  # what a recipe is called as a module


def read_recipe(given: str) -> RunConfig:
    """What the recipe returns. given: its file, or FILE:VARIANT.

    Raises ValueError for a file that is no recipe, or has no such variant, and for any error of its own.
    """
    path, colon, variant = given.partition(":")
    variants = (variant,) if colon else ()
    try:
        make = getattr(_loaded(path), "get_config", None)
        if not callable(make):
            raise _LackError("it has no function get_config that returns a RunConfig; see `mmpretrain recipes copy`")
        if not _takes(make, *variants):
            other = "a variant" if not variants else "no variant"
            raise _LackError(f"it takes {other}; give --config={path}{'' if variants else ':VARIANT'}")
        config = make(*variants)
    except _LackError as error:
        raise ValueError(f"--config={given}: {error}") from None
    except SyntaxError as error:
        raise ValueError(f"{error.filename or path}, line {error.lineno}: {error.msg}; correct the recipe") from error
    except SystemExit as error:
        raise ValueError(f"{_place(path, error)}: it ends the program; take that out of the recipe") from error
    except Exception as error:
        what = f"{type(error).__name__}: {one_line(error, BRIEF)}"
        raise ValueError(f"{_place(path, error)}: {what}; correct the recipe") from error
    if not isinstance(config, RunConfig):
        remedy = "; does get_config lack its `return`?" if config is None else ""
        raise ValueError(f"--config={given}: get_config returned {shown(config)}; it must be a RunConfig{remedy}")
    return config


class _LackError(Exception):
    """What a recipe lacks."""


def _loaded(path: str) -> ModuleType:
    loader = SourceFileLoader(MODULE, path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(MODULE, loader))
    sys.modules[MODULE] = module  # where dataclasses of its own look for themselves
    loader.exec_module(module)
    return module


def _takes(make: object, *arguments: str) -> bool:
    try:
        inspect.signature(make).bind(*arguments)
    except TypeError:
        return False
    return True


def _place(path: str, error: BaseException) -> str:
    """The line of the recipe where an error arose."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f"{path}, line {lines[-1]}" if lines else path
