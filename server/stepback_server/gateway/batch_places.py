"""Limit of batch searches in flight: few while there are others, and those rarely."""

import math
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Share of the engine that batches get while others use it, and after."""

    floor: int = 1
    """Searches of batches in flight at most while there are others: more than none, so that
    batches never stand still."""
    most: int = 16
    """The same while there are no others."""
    pause_seconds: float = 0.0
    """Rest of each place of the floor after a search, where others leave no gap."""
    gap_seconds: float = 0.05
    """Time without others that makes a gap: a place of the floor need not rest in it."""
    quiet_seconds: float = 1.0
    """Time without others before batches take more than the floor: between two
    searches of one caller there is always a gap."""


class BatchPlaces:
    """Counts the searches of batches. Times are of any clock that only grows."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self.searching = 0
        # When the last search ended that was of no batch.
        # A server that has just started has been alone for ever, so batches need not wait.
        self._alone_since = -math.inf
        # When the last ones ended, the first of them first: their places may rest.
        self._ended = deque[float](maxlen=max(1, limits.floor))

    def begin(self) -> None:
        """Count a search of a batch that begins."""
        self.searching += 1

    def end(self, now: float) -> None:
        """Count a search of a batch that ends."""
        self.searching -= 1
        self._ended.append(now)

    def other_ended(self, now: float) -> None:
        """Note that a search ended that was of no batch."""
        self._alone_since = now

    def room(self, now: float, *, has_others: bool) -> int:
        """Tell how many may begin; `has_others`: searches of no batch are in flight."""
        alone = self._alone(now, has_others)
        if alone >= self._limits.quiet_seconds:
            return max(0, self._limits.most - self.searching)
        places = min(self._limits.floor, self._limits.most) - self.searching
        resting = 0 if alone >= self._limits.gap_seconds else self._resting(now)
        return max(0, places - resting)

    def next_look(self, now: float, *, has_others: bool) -> float | None:
        """Return the seconds after which time alone may have made room; None if it never does."""
        alone = self._alone(now, has_others)
        given = (self._limits.gap_seconds, self._limits.quiet_seconds)
        waits = [] if has_others else [each - alone for each in given]
        if self._resting(now):
            waits.append(self._ended[0] + self._limits.pause_seconds - now)
        return min((wait for wait in waits if wait > 0), default=None)

    def _alone(self, now: float, has_others: bool) -> float:
        """Seconds without others; negative while there are some."""
        return -math.inf if has_others else now - self._alone_since

    def _resting(self, now: float) -> int:
        while self._ended and now - self._ended[0] >= self._limits.pause_seconds:
            self._ended.popleft()
        return len(self._ended)
