"""Writes a checkpoint in the layout of AV-HuBERT, reads it back, and compares."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmpretrain.encoders.encoder import load_encoder
from mmpretrain.export.avhubert.checkpoint import export_checkpoint, import_checkpoint
from mmpretrain.export.parity import Differences, cases_of, expected
from mmpretrain.records import Clip


def export_and_check(source: Path, target: Path, clips: Sequence[Clip]) -> Iterable[str]:
    """Writes the encoder of the folder `source` as the file `target`. Returns what to tell the user.

    Raises ValueError for an encoder that the layout cannot express, and if what is read back says something else.
    """
    ours = load_encoder(source, dtype="float32")
    cases, differences = cases_of(clips, ours.config), Differences()
    says = export_checkpoint(source, target)
    with tempfile.TemporaryDirectory() as scratch:
        import_checkpoint(target, Path(scratch) / "encoder")
        theirs = load_encoder(Path(scratch) / "encoder", dtype="float32")
    for case in cases:
        outputs = expected(theirs, case)
        differences.add(case.name, {name: x for name, x in expected(ours, case).items() if name in outputs}, outputs)
    try:
        return [*says, *differences.lines()]
    except ValueError:
        target.unlink()
        raise
