"""Stage `units`: how well what is said in every frame is learned from few labelled clips, pretrained and not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.config import as_dict, flatten
from mmpretrain.data.labels import labels_fingerprint
from mmpretrain.downstream.exposure import TEST_SEEN
from mmpretrain.downstream.units import Said, Units
from mmpretrain.evaluation.comparison import resampled_units
from mmpretrain.evaluation.frames import Rates
from mmpretrain.observe.progress import log
from mmpretrain.observe.wall_time import WallTime
from mmpretrain.report.units import render_units
from mmpretrain.run.command import ACCEPT_CHANGES, Command
from mmpretrain.run.layout import UNITS
from mmpretrain.run.run import Run

COMPARED = ("scratch", "mfcc", "picture", "untrained", "finetuned")  # with the frozen pretrained encoder


def units(run: Run) -> dict[str, Any]:
    """The error rates of every classifier on the test clips, for all inputs, numbers of labelled clips and draws."""
    of_run = Units(run)

    def work(folder: Path, wall: WallTime) -> dict[str, Any]:
        clips = {"training": of_run.num_training_clips, "validation": len(of_run.validation), "test": len(of_run.test)}
        log(
            f"units: {of_run.task.name}, {len(of_run.task.classes)} classes; learned from "
            f"{', '.join(map(str, of_run.numbers))} of {clips['training']} clips, chosen on {clips['validation']}, "
            f"tested on {clips['test']} of {of_run.protocol.name}; {TEST_SEEN}: {of_run.exposure}"
        )
        of_run.encoder.tell_other_scale(of_run.table, "units.encoder")
        with wall.during("evaluation"):
            table = [entry for inputs in of_run.inputs for entry in _of_inputs(of_run, inputs)]
        about = {
            "task": of_run.task.name, "classes": list(of_run.task.classes), "silence": of_run.task.silence,
            "protocol": f"{of_run.protocol.name} v{of_run.protocol.version}", "selection": "val",
            "clips": clips, TEST_SEEN: str(of_run.exposure),
            "resampled": resampled_units(*of_run.who(of_run.test))[1],
        }  # fmt: skip
        log(f"units:\n{render_units(table, about)}")
        return about | {"units": table}

    return run.stage(UNITS, _recipe(of_run), work)


def _recipe(units: Units) -> dict[str, Any]:
    """All that decides the figures: of the recipe, the encoder, and the clips with their labels and speakers."""
    run, model = units.run, units.model
    own = run.fields("seed", "units", but=["units.encoder", "units.corpora", "units.task.alignments"])
    clips = units.table.index.fingerprint("speakers") + units.table.fingerprint
    parts = [units.table.select(rows).fingerprint for rows in (*units.draws, units.validation, units.test)]
    return own | run.batches_recipe(model) | flatten(as_dict(model), "model") | {
        "encoder": units.encoder.fingerprint, "clips": clips, "clips of each part": parts,
        "labels": labels_fingerprint({units.task.name: units.labels_NT}),
    }  # fmt: skip


def _of_inputs(units: Units, inputs: str) -> Iterator[dict[str, Any]]:
    """An entry for each number of labelled clips."""
    names = units.inputs[inputs]
    plain = "mfcc" if "audio" in names else "picture"
    frozen = {name: units.features(name, names) for name in ("pretrained", "untrained", plain)}
    for clips in units.numbers:
        said: dict[str, list[Said]] = {}
        for draw in range(units.config.draws):
            rows = units.rows(clips, draw)
            for name, features in frozen.items():
                of_draw = said.setdefault(name, [])
                same = clips == units.num_training_clips and of_draw  # nothing of a probe on all clips is drawn
                of_draw.append(of_draw[0] if same else units.probe(features, rows))
            for name in ("scratch", "finetuned") if units.config.finetuned else ("scratch",):
                found = units.network(names, clips, draw, pretrained=name == "finetuned")
                said.setdefault(name, []).append(found)
        entry = _entry(units, inputs, clips, said)
        errors = ", ".join(f"{name} {100 * entry[f'{name}_error']['mean']:.1f}" for name in said)
        log(f"units: {inputs}, {clips} labelled clips, errors in percent of all {units.task.name}: {errors}")
        yield entry


def _entry(units: Units, inputs: str, clips: int, said: dict[str, list[Said]]) -> dict[str, Any]:
    rates = {name: _rates(units, of_draws) for name, of_draws in said.items()}
    return {
        "inputs": inputs, "labelled_clips": clips, "draws": units.config.draws, "num_steps": units.config.num_steps,
        **{f"{name}_error": of.figure() for name, of in rates.items()},
        **{f"{name}_accuracy": float(np.mean([s.counts.accuracy for s in of])) for name, of in said.items()},
        "times_the_errors": {
            name: rates["pretrained"].fewer_than(rates[name]) for name in COMPARED if name in rates
        },
        "chosen": {name: [of_draw.chosen for of_draw in of_draws] for name, of_draws in said.items()},
    }  # fmt: skip


def _rates(units: Units, of_draws: Sequence[Said]) -> Rates:
    errors_DN = np.stack([said.counts.errors for said in of_draws])
    return Rates(errors_DN, of_draws[0].counts.units, *units.who(units.test))


COMMAND = Command(
    "units",
    "how well what is said in every frame is learned from few labelled clips",
    lambda given: units(given.begin()),
    options=(ACCEPT_CHANGES,),
    examples=('mmpretrain units --config=demo --config.units.inputs=\'("audio", "audio+video")\'',),
)
