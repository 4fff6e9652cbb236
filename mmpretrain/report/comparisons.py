"""Classifiers side by side, in words: figures with their intervals, and whether the test clips tell two apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Table = tuple[list[str], list[list[str]]]  # names of the columns, rows of cells; the first column is text

NAMES = {
    "baseline": "MFCC statistics, logistic regression",
    "picture_baseline": "picture statistics, logistic regression",
    "scratch": "ours, from scratch",
    "pretrained": "ours, pretrained",
}
SHORT = {"baseline": "MFCC", "picture_baseline": "picture", "scratch": "scratch", "pretrained": "pretrained"}
BLIND = "clips_without_input"
READING = (
    "Intervals are of 95%, by resampling the test speakers with all their clips (or the clips, where it says so: those "
    "are too narrow). They are about other clips and speakers, for the one training that was done: another seed may "
    "give another figure. McNemar's p takes every clip for independent of the others."
)


def marked(column: str, result: Mapping[str, Any]) -> str:
    """The first column's name, with a mark where models were chosen on the test clips: figures are too good then."""
    return f"{column} [test-best]" if result.get("selection") == "test-best" else column


def interval_text(figures: Mapping[str, Any], metric: str = "ua") -> str:
    """E.g. 46.1-58.3; "" where it is not known."""
    found = (figures.get("intervals") or {}).get(metric)
    return f"{100 * found['low']:.1f}-{100 * found['high']:.1f}" if found else ""


def comparison_lines(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """One sentence each: the difference in UA, its interval, McNemar's p, and what may be concluded."""
    return [_line(comparison) for comparison in comparisons]


def _line(comparison: Mapping[str, Any]) -> str:
    first, second = (NAMES.get(comparison[side], comparison[side]) for side in ("first", "second"))
    ua, test = comparison["ua"], ""
    if "mcnemar_p" in comparison:  # of one training each
        test = (
            f"; McNemar's p {p_text(comparison['mcnemar_p'])} (right alone: {comparison['only_first']} and "
            f"{comparison['only_second']} clips)"
        )
    return (
        f"{first}, against {second}: UA {_points(ua['difference'])} points, interval {_points(ua['low'])} to "
        f"{_points(ua['high'])} ({comparison['clips']} clips, resampled: {comparison['resampled']}){test}. "
        f"{verdict(comparison)}"
    )


def comparison_table(of_parts: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], result: Mapping[str, Any]) -> Table:
    """A row a comparison. of_parts: comparisons of some clips, in words which: a fold, or all. result: of what."""
    columns = [marked("clips", result), "first", "second", "UA, points", "95%", "McNemar's p", ""]
    rows = []
    for part, comparisons in of_parts:
        for comparison in comparisons:
            names = (SHORT.get(comparison[side], comparison[side]) for side in ("first", "second"))
            ua = comparison["ua"]
            p = p_text(comparison["mcnemar_p"]) if "mcnemar_p" in comparison else ""
            reach = f"{_points(ua['low'])} to {_points(ua['high'])}"
            rows.append([part, *names, _points(ua["difference"]), reach, p, _word(comparison)])
    return columns, rows


def metrics_table(of_parts: Sequence[tuple[str, Sequence[Mapping[str, Any]]]], result: Mapping[str, Any]) -> Table:
    """A row a metric of a comparison, as `comparison_table`."""
    rows = []
    for part, comparisons in of_parts:
        for comparison in comparisons:
            names = [SHORT.get(comparison[side], comparison[side]) for side in ("first", "second")]
            for metric, found in comparison["metrics"].items():
                interval, word = "", ""
                if "low" in found:
                    interval = f"{found['low']:+.3f} to {found['high']:+.3f}"
                    word = "not told apart" if found["low"] <= 0 <= found["high"] else "told apart"
                rows.append([part, *names, metric, f"{found['difference']:+.3f}", interval, word])
    return [marked("clips", result), "first", "second", "metric", "difference", "95%", ""], rows


def fold_comparisons(summary: Mapping[str, Any]) -> Table:
    """Ours against the others in each fold, where there are several."""
    folds = [fold for fold in (summary.get("evaluation") or {}).get("folds") or () if fold.get("comparisons")]
    parts = [(f"fold {fold['fold']}", fold["comparisons"]) for fold in folds]
    return comparison_table(parts if len(parts) > 1 else [], summary.get("evaluation") or {})


def _word(comparison: Mapping[str, Any]) -> str:
    ua = comparison["ua"]
    if comparison.get("other_answers") == 0:
        return "same answers"
    return "not told apart" if ua["low"] <= 0 <= ua["high"] else "first better" if ua["low"] > 0 else "second better"


def verdict(comparison: Mapping[str, Any]) -> str:
    """What may be concluded from a comparison, as a sentence."""
    ua = comparison["ua"]
    if comparison.get("other_answers") == 0:
        return f"The same answers on all {comparison['clips']} clips."
    if ua["low"] <= 0 <= ua["high"]:
        return "The interval contains 0: these clips do not tell them apart."
    better = comparison["first"] if ua["low"] > 0 else comparison["second"]
    return f"The interval leaves 0 out: {NAMES.get(better, better)}, is better on clips like these, as trained here."


def p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def blind_lines(summary: Mapping[str, Any]) -> list[str]:
    """Of each baseline that has nothing of some test clips: how many, and what it answers there."""
    result = summary.get("evaluation") or {}
    return [
        f"{NAMES[name]}: {count} of its {sum(figures['support'])} test clips have none and are answered as the mean "
        "training clip is"
        for name in ("baseline", "picture_baseline")
        if (figures := result.get(name)) and (count := figures.get(BLIND))
    ]


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"
