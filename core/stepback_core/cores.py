"""Processor cores that this process may use."""

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup/cpu.max")
# Of the first version of cgroups, which older hosts have.
_CGROUP_1 = Path("/sys/fs/cgroup/cpu")


def usable_cores() -> int:
    """Count the cores that this process's affinity and its container's limit leave."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it.
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = _limit().split()
        # Without a limit it is "max", or -1 in the first version.
        return cores if quota in {"max", "-1"} else min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # No cgroups.
        return cores


def _limit() -> str:
    """Microseconds of processor time of this container, and the period to use them in."""
    if _CGROUP.exists():
        return _CGROUP.read_text()
    return " ".join((_CGROUP_1 / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
