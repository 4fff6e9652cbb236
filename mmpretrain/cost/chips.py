"""The peaks of the accelerators that a run can be planned for, with their sources, and the names of topologies."""

from __future__ import annotations

import dataclasses
import math
import re


@dataclasses.dataclass(frozen=True)
class Shares:
    """What of a chip's peaks our step reaches: of its FLOP/s by products, of its memory's bytes/s by all else.

    at_once: whether the two are reached at the same time; else one after the other, as the kernels of a GPU run.
    source: measured, or assumed.
    """

    compute: float
    memory: float
    at_once: bool
    source: str


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published peaks of one chip. A domain is the chips that fast links join (a TPU slice, a node of GPUs).

    flops_per_sec: dense, by the dtype of activations. link_bytes_per_sec: what a chip sends over all its fast links
    together, one way. network_bytes_per_sec: its share of what the domain sends to others. start_sec, hop_sec,
    network_hop_sec: what an exchange of next to nothing takes to start, to go on to the next chip, and to the next
    domain. dims: of its topologies. shares: of its peaks that a step reaches.
    """

    name: str
    kind: str  # JAX's platform: "tpu" or "gpu"
    flops_per_sec: dict[str, float]
    hbm_bytes: float
    hbm_bytes_per_sec: float
    link_bytes_per_sec: float
    network_bytes_per_sec: float
    start_sec: float
    hop_sec: float
    network_hop_sec: float
    domain_chips: int
    dims: int
    shares: Shares
    source: str


# JAX's default precision multiplies float32 as bfloat16 on a TPU and as TF32 on a GPU. TPU network figures are those of
# a host (2 x 100 Gbit/s for 8 chips of v5e) or the same order where the source has none.
# Latencies of a TPU: "How to Scale Your Model" (jax-ml.github.io/scaling-book/sharding, "A note on ICI latency"), about
# 1 us a hop, the start included; between slices assumed, the source has none. Of a GPU: what NCCL itself reckons with
# (github.com/NVIDIA/nccl, src/graph/tuning.cc, algorithm tree, protocol LL: baseLat 6.8, hwLat NVLink 0.6, net 5.0 us).
_ICI, _NVLINK = (0.0, 1e-6, 10e-6), (6.8e-6, 0.6e-6, 5e-6)
# Of a step of Base in bfloat16, 4,000 frames on one H100, 49.4 ms (docs/performance.md): the products, its 9.72 TFLOPs,
# take 20.3 ms, all else the rest, for the 55.7 GB that the plan counts in that step.
_MEASURED = Shares(0.48, 0.57, at_once=False, source="measured with Base on one H100")
_ASSUMED = Shares(0.4, 0.7, at_once=True, source="assumed, no step was measured")
_TPU_DOCS = "docs.cloud.google.com/tpu/docs"
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v5e", "tpu", {"bfloat16": 197e12, "float32": 197e12}, 16e9, 819e9, 200e9, 3.1e9,
             *_ICI, 256, 2, _ASSUMED,
             f"{_TPU_DOCS}/v5e: ICI 400 GB/s both ways together; 6.4 Tbit/s leave a pod of 256"),
        Chip("v5p", "tpu", {"bfloat16": 459e12, "float32": 459e12}, 95e9, 2765e9, 600e9, 6.2e9,
             *_ICI, 6144, 3, _ASSUMED,
             f"{_TPU_DOCS}/v5p: ICI 4800 Gbit/s; network assumed 200 Gbit/s for a host of 4 chips"),
        Chip("v6e", "tpu", {"bfloat16": 918e12, "float32": 918e12}, 32e9, 1638e9, 400e9, 12.5e9,
             *_ICI, 256, 2, _ASSUMED,
             f"{_TPU_DOCS}/v6e: ICI 800 GB/s both ways together; network assumed 800 Gbit/s for a host of 8 chips"),
        Chip("h100", "gpu", {"bfloat16": 989e12, "float32": 494e12}, 80e9, 3350e9, 450e9, 50e9,
             *_NVLINK, 8, 1, _MEASURED,
             "NVIDIA H100 SXM data sheet: NVLink 900 GB/s both ways together; DGX H100: one 400 Gbit/s port a GPU"),
        Chip("h200", "gpu", {"bfloat16": 989e12, "float32": 494e12}, 141e9, 4800e9, 450e9, 50e9,
             *_NVLINK, 8, 1, _MEASURED,
             "NVIDIA H200 SXM data sheet; NVLink and network as H100"),
    )
}  # fmt: skip

# How JAX calls them (`device.device_kind`). The PCIe and NVL builds of an H100 are slower, hence not it.
_KINDS = {
    "v5e": r"TPU v5 ?(lite|e)", "v5p": r"TPU v5p?", "v6e": r"TPU v6 ?(lite|e)",
    "h100": r"NVIDIA H100( SXM5)?( 80GB)?( HBM3)?", "h200": r"NVIDIA H200( SXM5?)?( 141GB)?( HBM3e)?",
}  # fmt: skip

EXAMPLES = ("v5e:2x2", "v5e:16x16", "v5p:2x2x1", "v5p:4x4x4", "v6e:16x16", "h100:8", "h200:16")


def chip_of(device_kind: str) -> Chip | None:
    """The chip that JAX calls so; None if it is not among `CHIPS`."""
    return next((CHIPS[name] for name, kind in _KINDS.items() if re.fullmatch(kind, device_kind)), None)


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips in a grid: `v5e:16x16` is 256 of them."""

    chip: Chip
    shape: tuple[int, ...]

    @property
    def num_chips(self) -> int:
        return math.prod(self.shape)

    @property
    def name(self) -> str:
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"


def parse_topology(name: str) -> Topology:
    """Reads CHIP:SHAPE. Raises ValueError saying which chips and shapes there are."""
    chip_name, _, shape = name.partition(":")
    chip, sizes = CHIPS.get(chip_name), shape.split("x")
    if chip is None or len(sizes) != chip.dims or not all(size.isdecimal() and int(size) for size in sizes):
        raise ValueError(
            f"--topology={name} is not known; it is CHIP:SHAPE with a chip of {', '.join(CHIPS)}, "
            f"e.g. {', '.join(EXAMPLES)}"
        )
    return Topology(chip, tuple(map(int, sizes)))
