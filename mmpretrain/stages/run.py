"""Which stages each command walks, in which order."""

from __future__ import annotations

from mmpretrain.parallel.processes import on_main
from mmpretrain.run.health import finish_round
from mmpretrain.run.run import Run
from mmpretrain.stages.evaluate import evaluate
from mmpretrain.stages.export import export
from mmpretrain.stages.finetune import finetune
from mmpretrain.stages.pretrain import pretrain
from mmpretrain.stages.refine import refine
from mmpretrain.stages.report import report
from mmpretrain.stages.targets import make_targets


def run_stages(command: str, run: Run, number: int | None = None, rounds: range | None = None) -> None:
    """Runs what `mmpretrain COMMAND` stands for.

    number: the round of `targets` and `pretrain`. rounds: those that `refine` walks, default all.
    """
    match command:
        case "run":
            if run.config.rounds:
                refine(run)
            if run.config.finetune is not None:
                finetune(run)
                evaluate(run)
            if run.config.rounds:
                export(run)
            on_main(lambda: report(run))
        case "refine":
            refine(run, rounds)
        case "targets":
            make_targets(run, number)
        case "pretrain":
            pretrain(run, number)
            finish_round(run, number)
        case "finetune":
            finetune(run)
        case "evaluate":
            evaluate(run)
        case "export":
            export(run)
        case "report":
            on_main(lambda: report(run))
