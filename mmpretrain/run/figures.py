"""What a run measured, in the words of the cards of its encoders: health of rounds, choice of a fold, tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmpretrain.config import FinetuneConfig
from mmpretrain.report.tables import percent
from mmpretrain.run.layout import EVALUATION
from mmpretrain.run.stage import known_result

HEALTH = "health of round "
CHOSEN = {
    "val": "the {what} that is best by {by} on the validation clips",
    "last": "the last {what}",
    "test-best": "the {what} that is best by {by} ON THE TEST CLIPS: its test figures are too high",
}


def figures_of_rounds(rounds: Sequence[Mapping[str, Any]], seed: int) -> dict[str, str]:
    """rounds: as `layout.round_figures` has them."""
    return {f"{HEALTH}{entry['round']}": f"{_health(entry)}; seed {seed}" for entry in rounds}


def _health(entry: Mapping[str, Any]) -> str:
    said = [
        f"{text} {percent(value)}"
        for name, text in (("masked_accuracy", "masked accuracy"), ("unmasked_accuracy", "unmasked"),
                           ("chance_accuracy", "the commonest cluster alone"))
        if (value := entry.get(name)) is not None
    ]  # fmt: skip
    said += [f"loss {entry['loss']:.3f}"] if entry.get("loss") is not None else []
    parts = [", ".join(said) + ", on validation clips"] if said else []
    parts += [f"{entry['clusters_used']} of {entry['num_clusters']} clusters used"]
    parts += [f"{text} {entry[name]:.3f}" for name, text in (("pnmi", "PNMI"), ("purity", "purity"))
              if entry.get(name) is not None]  # fmt: skip
    if probe := entry.get("probe"):
        where = f"{probe['protocol']}, fold {probe['fold']}"
        gain, low, high = (f"{100 * probe['over_untrained'][name]:+.1f}" for name in ("difference", "low", "high"))
        parts.append(
            f"linear probe UA {percent(probe['ua'])} on validation clips of {where}, over the untrained encoder {gain} "
            f"points (95% interval {low} to {high})"
        )
    return "; ".join(parts)


def figures_of_choice(config: FinetuneConfig, seed: int, values: Mapping[str, float]) -> dict[str, str]:
    """How a fold's step, or the penalty of its regression, was chosen. values: of it, "validation/TASK/METRIC"."""
    what = "step" if config.classifier == "trained" else "penalty of the regression"
    chosen = {"chosen": CHOSEN[config.selection].format(what=what, by=config.select_by)}
    chosen |= {"seed of fine-tuning": str(seed)} if config.classifier == "trained" else {}
    value = values.get(f"validation/{config.select_by}")
    on = "test" if config.selection == "test-best" else "validation"
    return chosen | ({f"{config.select_by}, {on} clips": f"{value:.3f}"} if value is not None else {})


def figures_of_tests(workdir: Path, variant: str, fold: int | None = None) -> dict[str, str]:
    """Of a variant by TASK/METRIC, on the test clips of one fold or of all; empty where it was not evaluated."""
    result = known_result(workdir, EVALUATION)
    tasks = (result or {}).get("tasks", {}).get(variant)
    numbers = [each["fold"] for each in result["folds"]] if tasks else []
    if not tasks or fold not in (None, *numbers):
        return {}
    known = {} if fold is None else result["folds"][numbers.index(fold)].get("intervals", {})
    on_main = variant == next(iter(result["tasks"]))  # whose intervals are kept of every fold
    made = {}
    for name, figure in tasks.items():
        task, _, metric = name.partition("/")
        value = figure["pooled"] if fold is None else figure["folds"][numbers.index(fold)]
        if metric == "loss" or value is None:
            continue
        of = figure if fold is None else known.get(metric, {}) if on_main and task == result["task"] else {}
        interval = f" (95% interval by speakers {of['low']:.3f} to {of['high']:.3f})" if "low" in of else ""
        made[f"{name}, test clips"] = f"{value:.3f}{interval}"
    folds = f"fold {fold}" if fold is not None else f"folds {', '.join(map(str, numbers))} together"
    how = {"trained": "fine-tuned", "frozen_linear": "logistic regression on the frozen encoder"}[result["classifier"]]
    lacks = f"; {result['protocol_lacks']}" if result["protocol_lacks"] else ""
    return {"tests": f"{how}; {result['protocol']}, {folds}{lacks}"} | made
