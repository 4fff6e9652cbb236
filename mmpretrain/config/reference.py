"""What only the reference does, as a preset that a recipe can apply: `reference_quirks(config)`."""

import dataclasses

from mmpretrain.config import RunConfig


def reference_quirks(config: RunConfig, *, unpublished: bool = False) -> RunConfig:
    """`config` with what only the reference does; what each field does stands beside it. No recipe has these.

    In every round: equal mask counts in a batch, zeros at batch size 1, modality dropout of whole batches, padding
    that counts, four dead classes, and labels at 100 Hz where all are of MFCC. unpublished: also what its code can do
    but no released model has: norms after the sums, a shared projection, dot products with temperature 1. Several label
    sets, which no released model has either, are several `targets`.
    """
    model = dataclasses.replace(config.model, norm="post", similarity="dot", temperature=1.0, tied_projection=True)
    rounds = []
    for round_ in config.rounds:
        lone = round_.masking.kind == "input"
        rounds.append(
            dataclasses.replace(
                round_,
                label_rate_hz=100 if all(targets.features == "mfcc" for targets in round_.targets) else 25,
                dead_classes=4,
                masking=dataclasses.replace(round_.masking, equal_counts=True, zero_lone_clip=lone),
                modality_dropout_unit="batch",
                count_padding=True,
            )
        )
    return dataclasses.replace(config, model=model if unpublished else config.model, rounds=tuple(rounds))
