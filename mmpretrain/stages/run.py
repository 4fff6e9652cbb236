"""Command `run`: all stages of a recipe, in order."""

from __future__ import annotations

from mmpretrain.observe.progress import log
from mmpretrain.parallel.processes import on_main
from mmpretrain.run.command import ACCEPT_CHANGES, PROFILE, Command
from mmpretrain.run.layout import stages_by_command
from mmpretrain.run.run import Run
from mmpretrain.stages.evaluate import evaluate
from mmpretrain.stages.export import export
from mmpretrain.stages.finetune import finetune
from mmpretrain.stages.label_efficiency import label_efficiency
from mmpretrain.stages.refine import refine
from mmpretrain.stages.report import report
from mmpretrain.stages.units import units

DO = {
    "refine": refine, "finetune": finetune, "evaluate": evaluate, "label-efficiency": label_efficiency,
    "units": units, "export": export,
}  # fmt: skip


def run_all(run: Run) -> None:
    """Does what the recipe has stages for, passes over those that are finished, and reports."""
    if run.config.finetune is None and (shares := run.config.label_efficiency.shares):
        log(f"label_efficiency.shares={shares} is of fine-tuning, which this recipe has not: passed over")
    for command in stages_by_command(run.config):
        DO[command](run)
    on_main(lambda: report(run))


COMMAND = Command(
    "run",
    "all of the stages below, in order; finished ones are passed over",
    lambda given: run_all(given.begin()),
    options=(PROFILE, ACCEPT_CHANGES),
    examples=("mmpretrain run --config=demo",),
)
