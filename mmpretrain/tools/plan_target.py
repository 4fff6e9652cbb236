"""What `mmpretrain plan` compiles for: devices that need not be here, or what stands in for them."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from jax.experimental import topologies

from mmpretrain.cost import gpu
from mmpretrain.cost.chips import Topology

# A CPU's program stands in for a GPU's: machine code that nobody runs need not be good.
QUICK_CPU = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
# Nothing can be tried out on a GPU that is not here: cuBLAS and cuDNN are called as they come, without the room that a
# faster algorithm may ask for, and no product of matrices is made by XLA itself, which would have to choose its tiles.
WITHOUT_GPU = {"xla_gpu_autotune_level": 0, "xla_gpu_enable_triton_gemm": False}
# libtpu looks for the host of a TPU otherwise, and complains; and two plans may be made at once.
LIBTPU_WITHOUT_TPU = {
    "TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-16", "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}  # fmt: skip
GPU_COMPILERS = ("jax-cuda13-pjrt", "jax-cuda12-pjrt")  # packages of JAX's compiler for GPUs, which needs no GPU
INSTALL_GPU_COMPILER = "pip install 'mmpretrain-jax[plan-gpu]'"


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices to compile for. compiler: what compiles, in words; options: what it is told besides the program."""

    devices: Sequence[jax.Device]
    compiler: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


def find_target(topology: Topology) -> Target:
    """The best that there is for a topology. To be called before JAX has looked for devices.

    Raises ValueError where the compiler for TPUs is not installed, or does not know the topology.
    """
    if topology.chip.kind == "tpu":
        return _tpus(topology)
    jax.config.update("jax_num_cpu_devices", topology.num_chips)  # should they have to stand in
    # JAX itself is asked only where it may find them: it takes what it finds, and complains of what it misses.
    if len(list(Path("/dev").glob("nvidia[0-9]*"))) == topology.num_chips and jax.default_backend() == "gpu":
        devices = jax.devices()
        if len(devices) == topology.num_chips:
            return Target(devices, f"for the {devices[0].device_kind} of this machine with jax {jax.__version__}")
    jax.config.update("jax_platforms", "cpu")  # a plan takes no accelerator
    return _gpus(topology) or _cpus_for_gpus(topology)


def _tpus(topology: Topology) -> Target:
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError("a plan for TPUs needs their compiler (no TPU): pip install 'mmpretrain-jax[plan]'")
    for name, value in LIBTPU_WITHOUT_TPU.items():
        os.environ.setdefault(name, value)
    jax.config.update("jax_platforms", "cpu")  # a plan takes no TPU
    try:
        devices = topologies.get_topology_desc(topology_name=topology.name, platform="tpu").devices
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"--topology={topology.name}: libtpu does not know it ({error})") from error
    return Target(devices, _ahead_of_time(devices, "libtpu"))


def _gpus(topology: Topology) -> Target | None:
    package = next((name for name in GPU_COMPILERS if _installed(name)), None)
    if package is None:
        return None
    chip, grid = topology.chip, gpu.grid(topology.chip, topology.num_chips)
    try:
        found = topologies.get_topology_desc(platform="cuda", topology=grid, target_config=gpu.target_config(chip))
    except RuntimeError as error:
        raise ValueError(
            f"{package} does not go with jax {jax.__version__} ({error}); {INSTALL_GPU_COMPILER}"
        ) from error
    return Target(found.devices, f"{_ahead_of_time(found.devices, package)}; nothing is tuned on a GPU", WITHOUT_GPU)


def _cpus_for_gpus(topology: Topology) -> Target:
    compiler = (
        f"for {topology.num_chips} virtual CPU devices in place of GPUs with jax {jax.__version__}: memory and bytes "
        "are estimates, mostly too high, since a CPU fuses less and has no bfloat16; those of the compiler for GPUs "
        f"(no GPU): {INSTALL_GPU_COMPILER}"
    )
    return Target(jax.devices("cpu"), compiler, QUICK_CPU)


def _ahead_of_time(devices: Sequence[jax.Device], package: str) -> str:
    versions = f"jax {jax.__version__}, {package} {importlib.metadata.version(package)}"
    return f"ahead of time for {devices[0].device_kind} with {versions}"


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
