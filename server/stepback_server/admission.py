"""How many searches run, how many wait, and when to say no."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class QueueFull(Exception):
    """No more searches may wait. `retry_after` is in whole seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__("the queue is full")
        self.retry_after = retry_after


class Admission:
    """A bounded queue before a bounded number of searches in flight, first come first served."""

    def __init__(self, *, max_searches: int, max_queued: int, max_seconds: float = 60.0) -> None:
        self._max_searches = max_searches
        self._max_queued = max_queued
        self._max_seconds = max_seconds
        self._slots = asyncio.Semaphore(max_searches)
        self._mean_seconds = 1.0
        self.searching = 0
        self.queued = 0
        self.idle = asyncio.Event()
        """Set while no search is in flight."""
        self.idle.set()

    @property
    def is_full(self) -> bool:
        return self.queued >= self._max_queued and self._slots.locked()

    @asynccontextmanager
    async def slot(self) -> AsyncGenerator[float]:
        """Hold a place among the running searches; gives the seconds that it took to get one.

        Raises QueueFull, at once or after `max_seconds` in the queue. Leaving the queue by
        cancellation frees the place there.
        """
        if self.is_full:
            raise QueueFull(self._retry_after())
        arrived = time.monotonic()
        self.queued += 1
        try:
            async with asyncio.timeout(self._max_seconds):
                await self._slots.acquire()
        except TimeoutError:
            raise QueueFull(self._retry_after()) from None
        finally:
            self.queued -= 1
        started = time.monotonic()
        self.searching += 1
        self.idle.clear()
        try:
            yield started - arrived
        finally:
            self.searching -= 1
            if not self.searching:
                self.idle.set()
            self._slots.release()
            self._mean_seconds += 0.1 * (time.monotonic() - started - self._mean_seconds)

    def _retry_after(self) -> int:
        """When a place in the queue should be free: one search's mean time over those in flight."""
        return max(1, round(self._mean_seconds / self._max_searches))
