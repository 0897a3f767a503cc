"""A circuit breaker: what has failed several times in a row is left alone for a while. Pure."""

from collections.abc import Callable


class Breaker:
    """Opens after `failures` in a row; after `pause` seconds one call may try whether it is well.

    A trial that fails, or that nothing comes of, is followed by another pause.
    """

    def __init__(self, failures: int, pause: float, clock: Callable[[], float]) -> None:
        self._limit = failures
        self._pause = pause
        self._clock = clock
        self._failures = 0
        self._quiet_until = 0.0

    @property
    def is_open(self) -> bool:
        """Tell whether it has failed too often."""
        return self._failures >= self._limit

    def permits(self) -> bool:
        """Tell if a call may be made now. Of an open one this is the trial, if it says yes."""
        if not self.is_open:
            return True
        if self._clock() < self._quiet_until:
            return False
        self._quiet_until = self._clock() + self._pause
        return True

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1
        self._quiet_until = self._clock() + self._pause
