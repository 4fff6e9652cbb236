"""Corpora that a recipe says how to make, such as the demo's, are prepared before the first stage that needs them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mmpretrain.config import CorpusConfig
from mmpretrain.observe.progress import log
from mmpretrain.parallel.processes import on_main
from mmpretrain.records import CORPUS_FILE


def prepare_missing(corpora: Sequence[CorpusConfig]) -> None:
    """Runs `python -m data_prep` for each corpus that has `prepare` and is not whole; process 0 does, all others wait.

    What was interrupted goes on where it stopped. Raises ValueError where preparation fails, with its command.
    """
    for corpus in corpora:
        if corpus.prepare:
            on_main(lambda corpus=corpus: _prepare(corpus))


def _prepare(corpus: CorpusConfig) -> None:
    if not (Path(corpus.path) / CORPUS_FILE).exists():
        run_preparation(corpus)


def run_preparation(corpus: CorpusConfig) -> None:
    """Prepares it as its `prepare` says; where it is whole and of the same clips, nothing is to be done."""
    arguments = ["data_prep", *corpus.prepare, "--output", corpus.path]
    command = f"python -m {shlex.join(arguments)}"  # as a shell takes it
    log(f"{corpus.path}: to be prepared with `{command}`")
    # A program of its own: it does without JAX, and starts processes that should not have any of this one's threads.
    code = subprocess.run([sys.executable, "-m", *arguments], check=False).returncode
    if code:
        raise ValueError(f"{corpus.path}: `{command}` ended with code {code}, see above")
