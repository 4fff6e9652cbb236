"""Whether a round has collapsed, so that training on would waste its time, and what to change then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmpretrain.config import HealthConfig


class Collapsed(Exception):  # noqa: N818
    """A round whose targets or whose predictions tell nothing; the message says what to change."""


def check_targets(number: int, codebooks: Sequence[Mapping[str, Any]], limits: HealthConfig) -> None:
    """Raises Collapsed if a codebook of round `number` uses too few of its clusters.

    codebooks: of each, at least clusters_used and num_clusters.
    """
    for index, codebook in enumerate(codebooks):
        used, wanted = codebook["clusters_used"], codebook["num_clusters"]
        if used < limits.min_clusters_used * wanted:
            field = f"rounds[{number - 1}].targets[{index}]"
            raise Collapsed(
                f"round {number} has collapsed: its targets use {int(used)} of {wanted} clusters, less than "
                f"health.min_clusters_used={limits.min_clusters_used}: frames hardly differ in what was clustered. Try "
                f"another layer ({field}.layer), fewer clusters ({field}.num_clusters), or an encoder that was trained "
                f"longer or at a lower peak_lr; remove round{number} and whatever else should be made anew, then give "
                f"the command again (to go on with these: --config.health.min_clusters_used=0)"
            )


def check_predictions(number: int, codebooks: Sequence[Mapping[str, Any]], limits: HealthConfig) -> None:
    """Raises Collapsed if round `number` predicts a codebook no better than always answering its commonest cluster.

    codebooks: masked_accuracy and chance_accuracy of each on validation. A codebook where one of them is None passes.
    """
    for codebook in codebooks:
        accuracy, chance = codebook["masked_accuracy"], codebook["chance_accuracy"]
        if accuracy is None or chance is None or accuracy > chance + limits.min_accuracy_gain:
            continue
        field = f"rounds[{number - 1}]"
        raise Collapsed(
            f"round {number} has collapsed: masked accuracy {100 * accuracy:.1f} % on validation, where always "
            f"answering the commonest cluster has {100 * chance:.1f} % (health.min_accuracy_gain="
            f"{limits.min_accuracy_gain}). Lower {field}.optimizer.peak_lr or lengthen its warm-up if the loss rose or "
            f"stood still, raise {field}.num_steps if it was still falling, or hide less ({field}.masking); remove "
            f"round{number}/pretrain, then give the command again (to go on with this encoder: "
            f"--config.health.min_accuracy_gain=-1)"
        )
