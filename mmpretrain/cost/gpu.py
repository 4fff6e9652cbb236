"""A GPU described as XLA's compiler wants it, which then needs none: `xla.gpu.GpuTargetConfigProto`, as text."""

from __future__ import annotations

import math

from mmpretrain.cost.chips import Chip

# NVIDIA's CUDA programming guide, technical specifications of compute capability 9.0: threads, blocks, registers and
# the shared memory of a multiprocessor (228 KB; a block has 48 KB of it, or 227 KB if it asks). NVIDIA's "H100 Tensor
# Core GPU Architecture", SXM5: 132 multiprocessors of 128 float32 units each, 50 MB of L2; up to 1.98 GHz. An H200 is
# this chip with other memory. XLA weighs with these what to fuse, and how much memory a step may take.
_HOPPER_SXM = """\
gpu_device_info {{
  cuda_compute_capability {{ major: 9 feature_extension: ACCELERATED_FEATURES }}
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  shared_memory_per_core: {shared_core}
  shared_memory_per_block_optin: {shared_optin}
  shared_memory_per_block: {shared_block}
  l2_cache_size: {l2}
  memory_bandwidth: {bandwidth:.0f}
  device_memory_size: {memory:.0f}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 12 }}
device_description_str: "{name}"
"""
_NAMES = {"h100": "NVIDIA H100 80GB HBM3", "h200": "NVIDIA H200"}  # as their drivers call them


def target_config(chip: Chip) -> str:
    """The description of one of the GPUs among `CHIPS`."""
    return _HOPPER_SXM.format(
        shared_core=228 * 2**10, shared_optin=227 * 2**10, shared_block=48 * 2**10, l2=50 * 2**20,
        bandwidth=chip.hbm_bytes_per_sec, memory=chip.hbm_bytes, name=_NAMES[chip.name],
    )  # fmt: skip


def grid(chip: Chip, num_chips: int) -> str:
    """How XLA writes so many GPUs: NVLink domains x nodes of a domain x GPUs of a node; here a node is a domain."""
    node = num_chips if num_chips <= chip.domain_chips else math.gcd(num_chips, chip.domain_chips)
    return f"{num_chips // node}x1x{node}"
