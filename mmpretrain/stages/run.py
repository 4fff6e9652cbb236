"""Which stages each command walks, in which order."""

from __future__ import annotations

from mmpretrain.parallel.processes import on_main
from mmpretrain.stages.context import Run
from mmpretrain.stages.evaluate import evaluate
from mmpretrain.stages.export import export
from mmpretrain.stages.finetune import finetune
from mmpretrain.stages.pretrain import pretrain
from mmpretrain.stages.summarize import report
from mmpretrain.stages.targets import make_targets


def run_stages(command: str, run: Run, number: int | None) -> None:
    """Runs what `mmpretrain COMMAND` stands for; `number` is the round of `targets` and `pretrain`."""
    match command:
        case "run":
            refine(run)
            if run.config.finetune is not None:
                finetune(run)
                evaluate(run)
            if run.config.rounds:
                export(run)
            on_main(lambda: report(run))
        case "refine":
            refine(run)
        case "targets":
            make_targets(run, number)
        case "pretrain":
            pretrain(run, number)
        case "finetune":
            finetune(run)
        case "evaluate":
            evaluate(run)
        case "export":
            export(run)
        case "report":
            on_main(lambda: report(run))


def refine(run: Run) -> None:
    """All rounds: make targets, pretrain, make better targets from the encoder, pretrain again."""
    for number in range(1, len(run.config.rounds) + 1):
        make_targets(run, number)
        pretrain(run, number)
