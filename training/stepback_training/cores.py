"""Number of processes that are worth starting here."""

from stepback_core import cores

# More processes than these do not pay for their start.
_MOST = 16


def usable_cores(*, shared_by: int = 1) -> int:
    """Cores that this process may use, by its affinity and its container's limit, each of
    `shared_by` processes with as many."""
    return min(max(1, cores.usable_cores() // shared_by), _MOST)
