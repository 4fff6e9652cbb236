"""How a run goes about its work: devices, checkpoints, when to stop, and what it tells. No figure depends on it."""

# No `from __future__ import annotations`: the command line reads the fields' types as objects.
import dataclasses

from mmpretrain.config.ranges import above, below, setting, within, words

LARGE = 2**31 - 1
SHARE, AXIS = within(0, 1), within(1, 1_048_576, "-1 (all that is left) or between 1 and 1_048_576", also=(-1,))


@dataclasses.dataclass
class ParallelConfig:
    """Shape of the device mesh; one axis may be -1 (all that is left)."""

    data: int = setting(-1, AXIS)
    fsdp: int = setting(1, AXIS)
    tensor: int = setting(1, AXIS)
    # the data axis spans so many TPU slices, or GPU nodes, joined by a slower network
    slices: int = setting(1, within(1, 65_536, "at least 1 and at most 65_536"))
    # parts that a step goes through one after another, to save memory; see docs/training.md
    micro_batches: int = setting(1, above(0, most=65_536))
    # a process that gives no sign for so long is lost, and the run ends
    lost_after_sec: int = setting(60, within(5, 86_400, "at least 5 and at most 86_400"))


@dataclasses.dataclass
class CheckpointConfig:
    every_steps: int = setting(1_000, above(0, most=LARGE))
    keep: int = setting(2, above(0, most=LARGE))
    # validation metric of pretraining whose best encoder is kept beside the last; "": none
    best_by: str = setting("", words("a metric of validation"))


@dataclasses.dataclass
class HealthConfig:
    """When training is not worth going on with: the run then stops with advice.

    A round has collapsed, or a step is bad: its loss is no number or explodes (train/guard.py).
    """

    # share of each codebook's clusters that have a frame; 0: never stop for this
    min_clusters_used: float = setting(0.25, SHARE)
    # of masked accuracy over always answering the commonest cluster; -1: never
    min_accuracy_gain: float = setting(0.01, below(1, least=-1, text="-1 to below 1"))
    # a loss above so many times the mean of the good steps is bad; 0: no finite one is
    max_loss_rise: float = setting(5.0, above(1, most=1e30, also=(0,), text="above 1, or 0: no finite loss is bad"))
    # bad steps in a row that are passed over without an update; one more stops the run
    skip_bad_steps: int = setting(0, within(0, LARGE, "0 (stop at the first) or more, up to 2_147_483_647"))


@dataclasses.dataclass
class ObserveConfig:
    """What a run tells beside its JSON lines."""

    tensorboard: bool = True  # the same records as event files under WORKDIR/tensorboard
    # the same records in Weights & Biases (extra `wandb`); "": not there
    wandb_project: str = setting("", words("a name"))
    # of one device, which MFU is measured against; 0: by its name, see cost/chips.py
    peak_tflops: float = setting(0.0, within(0, 1_000_000_000, "above 0, or 0: by the device's name"))
