"""How long a step takes, by a model simple enough to check by hand: predictions, never measurements."""

from __future__ import annotations

import dataclasses

from mmpretrain.cost.chips import Chip
from mmpretrain.cost.hlo import Collective

# Assumed, not measured: what of its peaks a chip reaches.
COMPUTE_SHARE = 0.4
MEMORY_SHARE = 0.7
NETWORK_SHARE = 0.5

MODEL = f"""\
step = max(compute, memory) + exchange, nothing of the exchange hidden behind the rest
  compute   FLOPs a chip / ({COMPUTE_SHARE} * peak FLOP/s)
  memory    bytes a chip / ({MEMORY_SHARE} * HBM bytes/s)
  exchange  sum over collectives of f * P * ((d-1)/d / link + (s-1)/s / d / network) / {NETWORK_SHARE}
            P payload in bytes, groups of d chips joined by fast links in each of s domains (slices, nodes),
            f = 2 for an all-reduce and 1 for the others; a permute takes P / link / {NETWORK_SHARE}
scaling to n chips changes the `data` axis alone; with the batch per chip kept, all but the size of its groups stays;
with the global batch kept, FLOPs and bytes of a chip shrink with n, except reading and writing its parameters and
optimizer state, and the payloads stay. Efficiency is a chip's throughput beside that of one that exchanges nothing\
"""

_FACTOR = {"all-reduce": 2.0}


@dataclasses.dataclass(frozen=True)
class Work:
    """One step's work of each chip of a mesh. state_bytes: parameters and optimizer state of one chip."""

    chip: Chip
    num_chips: int
    flops: float
    memory_bytes: float
    state_bytes: float
    collectives: tuple[Collective, ...]


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Seconds of a step's parts on one chip."""

    compute: float
    memory: float
    exchange: float

    @property
    def total(self) -> float:
        return max(self.compute, self.memory) + self.exchange

    @property
    def efficiency(self) -> float:
        return max(self.compute, self.memory) / self.total


def sent_bytes(collective: Collective) -> float:
    """What each device sends: (n-1)/n of the payload, twice for an all-reduce (a ring's bound); a permute sends all."""
    n = collective.group_size
    if collective.kind == "collective-permute":
        return collective.payload_bytes
    return _FACTOR.get(collective.kind, 1.0) * (n - 1) / n * collective.payload_bytes


def step_time(work: Work, *, dtype: str) -> StepTime:
    """dtype: of the activations, which chooses the peak."""
    chip = work.chip
    compute = work.flops / (COMPUTE_SHARE * chip.flops_per_sec[dtype])
    memory = work.memory_bytes / (MEMORY_SHARE * chip.hbm_bytes_per_sec)
    return StepTime(compute, memory, sum(_exchange(collective, work) for collective in work.collectives))


def scaled(work: Work, num_chips: int, *, keep_global_batch: bool) -> Work:
    """The same program with a longer or shorter `data` axis, the other axes as they are."""
    growth = num_chips / work.num_chips
    collectives = [_scaled_collective(collective, growth) for collective in work.collectives]
    share = 1 / growth if keep_global_batch else 1.0
    state = 2 * work.state_bytes
    return dataclasses.replace(
        work, num_chips=num_chips, flops=work.flops * share,
        memory_bytes=state + max(work.memory_bytes - state, 0) * share,
        collectives=tuple(c for c in collectives if c.group_size > 1),
    )  # fmt: skip


def _scaled_collective(collective: Collective, growth: float) -> Collective:
    if "data" not in collective.axes or collective.kind == "collective-permute":
        return collective
    return dataclasses.replace(collective, group_size=round(collective.group_size * growth))


def _exchange(collective: Collective, work: Work) -> float:
    """Seconds of one exchange: rings inside each domain, then between the domains."""
    size, links = collective.group_size, NETWORK_SHARE * work.chip.link_bytes_per_sec
    if collective.kind == "collective-permute":
        return collective.payload_bytes / links
    # Only the `data` axis, the outermost of the mesh, reaches out of a domain.
    others = work.num_chips / size if "data" in collective.axes else 1
    inside = min(size, max(1.0, work.chip.domain_chips / others))
    domains = size / inside
    payload = _FACTOR.get(collective.kind, 1.0) * collective.payload_bytes
    network = NETWORK_SHARE * work.chip.network_bytes_per_sec
    return payload * ((inside - 1) / inside / links + (domains - 1) / domains / inside / network)
