"""End of an engine's process: its exit status and last lines."""

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

_BY_A_SIGNAL = "killed by"
# vLLM's own account of a core that ended before it was up: `Failed core proc(s): {'Core': -4}`,
# or `{}` where it looked too early.
_FAILED_CORES = re.compile(r"Failed core proc\(s\): \{(?:'[^']*': (-?\d+))?")
_CORE_REPORT = re.compile(r"the engine core (?:was )?((?:killed by|ended with) .+)")


def cause_of(status: int) -> str:
    """Say how a process ended: by which signal, or with which exit status."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"{_BY_A_SIGNAL} {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal has no name
        return f"{_BY_A_SIGNAL} signal {-status}"


def core_report(status: int) -> str:
    """The line that a server writes when its engine core has ended; `reported_cause` reads it."""
    cause = cause_of(status)
    return f"the engine core {'was ' if status < 0 else ''}{cause}"


def reported_cause(text: str) -> str | None:
    """Find a `core_report` in what a server wrote."""
    return found[1] if (found := _CORE_REPORT.search(text)) else None


def failed_cores(text: str) -> str | None:
    """Tell how a core ended by vLLM's own account of a failed start; None if there is none."""
    if (found := _FAILED_CORES.search(text)) is None:
        return None
    return cause_of(int(found[1])) if found[1] else "ended"


@dataclass(frozen=True, slots=True)
class Death:
    """Cause of the end of an engine's process."""

    cause: str
    """"killed by SIGILL", "ended with status 1"."""
    last_lines: Sequence[str] = ()
    """Last lines that it wrote, oldest first."""

    @property
    def by_a_signal(self) -> bool:
        """Tell a crash from an engine that ended itself and said why."""
        # A crash may pass with the next start; an engine that said why it ended will say it again.
        return self.cause.startswith(_BY_A_SIGNAL)

    def __str__(self) -> str:
        """One line for a log."""
        if not self.last_lines:
            return self.cause
        return f"{self.cause}; its last lines: {' | '.join(self.last_lines)}"
