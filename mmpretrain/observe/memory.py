"""How much memory a run has needed at most."""

from __future__ import annotations

import resource
import sys

import jax


def peak_memory() -> dict[str, int]:
    """`memory/device_peak_bytes` of this process's fullest device, or, where the backend does not say (a CPU does not),
    `memory/host_peak_bytes` of this process.
    """
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    if peaks := [each["peak_bytes_in_use"] for each in stats if "peak_bytes_in_use" in each]:
        return {"memory/device_peak_bytes": max(peaks)}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"memory/host_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
