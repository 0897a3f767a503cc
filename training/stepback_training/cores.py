"""Number of processes that are worth starting here."""

import os
from pathlib import Path

# More processes than these do not pay for their start.
_MOST = 16
_CGROUP = Path("/sys/fs/cgroup/cpu.max")
# Of the first version of cgroups, which older hosts have.
_CGROUP_1 = Path("/sys/fs/cgroup/cpu")


def usable_cores(*, shared_by: int = 1) -> int:
    """Cores that this process may use, by its affinity and its container's limit, each of
    `shared_by` processes with as many."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it.
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(max(1, min(cores, _cgroup_cores() or cores) // shared_by), _MOST)


def _cgroup_cores() -> int | None:
    """The container's limit (`docker run --cpus`); None if there is none."""
    try:
        quota, period = _limit().split()
        # Without a limit it is "max", or -1 in the first version.
        return None if quota in {"max", "-1"} else max(1, int(quota) // int(period))
    except (OSError, ValueError):  # No cgroups.
        return None


def _limit() -> str:
    """Microseconds of processor time, and the period in which they may be used."""
    if _CGROUP.exists():
        return _CGROUP.read_text()
    return " ".join((_CGROUP_1 / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
