"""How long a step takes, by a model simple enough to check by hand: predictions, never measurements."""

from __future__ import annotations

import dataclasses
import math

from mmpretrain.cost.chips import Chip
from mmpretrain.cost.hlo import Collective

NETWORK_SHARE = 0.5  # of the peaks of links and network; assumed, not measured

MODEL = f"""\
step = compute and memory + exchange + latency, nothing of the exchange hidden behind the rest
  compute   FLOPs a chip / (share of its peak * peak FLOP/s)
  memory    bytes a chip / (share of its peak * HBM bytes/s)
  and       their sum on GPUs, whose kernels run one after the other; the longer of them on TPUs
  exchange  sum over collectives of f * P * ((d-1)/d / link + (s-1)/s / d / network) / {NETWORK_SHARE}
            P payload in bytes, groups of d chips joined by fast links in each of s domains (slices, nodes),
            f = 2 for an all-reduce and 1 for the others; a permute takes P / link / {NETWORK_SHARE}
  latency   sum over collectives in series, of which each waits for the one before (others start together with these),
            of start + f * (h * hop + H * network hop); h = d - 1 on GPUs, sqrt(d) in two dims of a TPU, 1.5 cbrt(d) in
            three; H = log2(s) for an all-reduce (a tree), s - 1 for the others
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
    latency: float
    at_once: bool  # compute and memory

    @property
    def alone(self) -> float:
        """Without exchange."""
        return max(self.compute, self.memory) if self.at_once else self.compute + self.memory

    @property
    def total(self) -> float:
        return self.alone + self.exchange + self.latency

    @property
    def efficiency(self) -> float:
        return self.alone / self.total


def sent_bytes(collective: Collective) -> float:
    """What each device sends: (n-1)/n of the payload, twice for an all-reduce (a ring's bound); a permute sends all."""
    n = collective.group_size
    if collective.kind == "collective-permute":
        return collective.payload_bytes
    return _FACTOR.get(collective.kind, 1.0) * (n - 1) / n * collective.payload_bytes


def step_time(work: Work, *, dtype: str) -> StepTime:
    """dtype: of the activations, which chooses the peak."""
    chip, shares = work.chip, work.chip.shares
    compute = work.flops / (shares.compute * chip.flops_per_sec[dtype])
    memory = work.memory_bytes / (shares.memory * chip.hbm_bytes_per_sec)
    exchange = sum(_exchange(collective, work) for collective in work.collectives)
    waits = sum(c.in_series * latency(c, work) for c in work.collectives)
    return StepTime(compute, memory, exchange, waits, shares.at_once)


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
    links = NETWORK_SHARE * work.chip.link_bytes_per_sec
    if collective.kind == "collective-permute":
        return collective.payload_bytes / links
    inside, domains = _domains(collective, work)
    payload = _FACTOR.get(collective.kind, 1.0) * collective.payload_bytes
    network = NETWORK_SHARE * work.chip.network_bytes_per_sec
    return payload * ((inside - 1) / inside / links + (domains - 1) / domains / inside / network)


def _domains(collective: Collective, work: Work) -> tuple[float, float]:
    """How many chips of a group are in one domain, and how many domains it reaches over."""
    # Only the `data` axis, the outermost of the mesh, reaches out of a domain.
    others = work.num_chips / collective.group_size if "data" in collective.axes else 1
    inside = min(collective.group_size, max(1.0, work.chip.domain_chips / others))
    return inside, collective.group_size / inside


def latency(collective: Collective, work: Work) -> float:
    """Seconds of one exchange of next to nothing."""
    chip = work.chip
    if collective.kind == "collective-permute":
        return chip.start_sec + chip.hop_sec
    inside, domains = _domains(collective, work)
    # Along a chain of a node's chips (NCCL); half round each ring of a torus.
    hops = inside - 1 if chip.kind == "gpu" else chip.dims * inside ** (1 / chip.dims) / 2 if inside > 1 else 0.0
    between = math.log2(domains) if collective.kind == "all-reduce" else domains - 1
    return chip.start_sec + _FACTOR.get(collective.kind, 1.0) * (hops * chip.hop_sec + between * chip.network_hop_sec)
