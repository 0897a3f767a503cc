"""One search for one Idempotency-Key: a request that is repeated joins it, or gets its result."""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from stepback_server.errors import idempotency_mismatch


@dataclass(slots=True, eq=False)
class _Entry:
    fingerprint: bytes
    task: asyncio.Task[bytes]
    waiting: int = 0
    expires: float = math.inf
    """Monotonic seconds; of one that runs, never."""
    is_joined: bool = False
    """Another controller gave the answer."""


@dataclass(slots=True, eq=False)
class _Entries:
    """Entries of one tenant, by key."""

    running: dict[str, _Entry] = field(default_factory=dict[str, _Entry])
    finished: dict[str, _Entry] = field(default_factory=dict[str, _Entry])
    """Entries in the order in which they finished."""
    bytes: int = 0
    """Bytes of the finished answers."""

    def find(self, key: str) -> _Entry | None:
        return self.running.get(key) or self.finished.get(key)

    def keep(self, key: str, entry: _Entry) -> None:
        self.finished[key] = entry
        # Only the answer's bytes: everything else of an entry is small.
        self.bytes += len(entry.task.result())

    def forget_oldest(self) -> None:
        key = next(iter(self.finished))
        self.bytes -= len(self.finished.pop(key).task.result())


class Elsewhere(Protocol):
    """The same at other controllers."""

    async def once(
        self,
        tenant: str,
        key: str,
        fingerprint: bytes,
        work: Callable[[], Coroutine[Any, Any, bytes]],
    ) -> tuple[bytes, bool]: ...

    async def knows(self, tenant: str, key: str) -> bool: ...

    async def is_wanted(self, tenant: str, key: str) -> bool:
        """True if a caller of another controller waits for what runs here."""
        ...


class IdempotentAnswers:
    """Answers as bytes, in memory. The limits hold for each tenant, so none can evict another's.

    Only results are kept. An error has cost nothing, and trying it again is the point of a retry.
    """

    def __init__(
        self,
        *,
        max_results: int,
        max_bytes: int,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self._elsewhere = elsewhere
        self._max_results = max_results
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._clock = clock
        self._tenants: dict[str, _Entries] = {}

    async def knows(self, tenant: str, key: str) -> bool:
        """Tell whether a request with this key would join another one, or get its answer."""
        entries = self._tenants.setdefault(tenant, _Entries())
        self._evict(entries)
        if entries.find(key) is not None:
            return True
        return self._elsewhere is not None and await self._elsewhere.knows(tenant, key)

    async def once(
        self,
        tenant: str,
        key: str,
        fingerprint: bytes,
        work: Callable[[], Coroutine[Any, Any, bytes]],
    ) -> tuple[bytes, bool]:
        """The answer, and whether another request's work gave it.

        The work goes on while anyone waits for it, and is cancelled when the last one leaves.
        Raises what the work raises, and ApiError where the key was used for another request.
        """
        entries = self._tenants.setdefault(tenant, _Entries())
        self._evict(entries)
        entry = entries.find(key)
        is_joined = entry is not None
        if entry is None:
            entry = self._start(tenant, entries, key, fingerprint, work)
        elif entry.fingerprint != fingerprint:
            raise idempotency_mismatch()
        content = await self._wait(tenant, entries, key, entry)
        return content, is_joined or entry.is_joined

    def _start(
        self,
        tenant: str,
        entries: _Entries,
        key: str,
        fingerprint: bytes,
        work: Callable[[], Coroutine[Any, Any, bytes]],
    ) -> _Entry:
        async def everywhere(elsewhere: Elsewhere) -> bytes:
            content, entry.is_joined = await elsewhere.once(tenant, key, fingerprint, work)
            return content

        working = work() if self._elsewhere is None else everywhere(self._elsewhere)
        entry = entries.running[key] = _Entry(fingerprint, asyncio.create_task(working))
        entry.task.add_done_callback(lambda _: self._settle(entries, key, entry))
        return entry

    async def _wait(self, tenant: str, entries: _Entries, key: str, entry: _Entry) -> bytes:
        entry.waiting += 1
        try:
            # Shielded: one caller that hangs up must not end the search of the others.
            return await asyncio.shield(entry.task)
        finally:
            entry.waiting -= 1
            if not entry.waiting and not entry.task.done():
                await self._give_up(tenant, entries, key, entry)

    async def _give_up(self, tenant: str, entries: _Entries, key: str, entry: _Entry) -> None:
        """End work that no caller waits for, here or at another controller."""
        if self._elsewhere is not None and await self._elsewhere.is_wanted(tenant, key):
            return
        # Things may have changed while the database was asked.
        if entry.waiting or entry.task.done():
            return
        # Forgotten first: a request that comes while it is being cancelled starts again.
        del entries.running[key]
        entry.task.cancel()
        await asyncio.gather(entry.task, return_exceptions=True)

    def _settle(self, entries: _Entries, key: str, entry: _Entry) -> None:
        """Keep what has just finished, if it is a result."""
        # Given up meanwhile: another entry may stand under the key.
        if entries.running.get(key) is not entry:
            return
        del entries.running[key]
        if entry.task.cancelled() or entry.task.exception() is not None:
            return
        entry.expires = self._clock() + self._seconds
        entries.keep(key, entry)
        self._evict(entries)

    def _evict(self, entries: _Entries) -> None:
        """Forget the oldest results, down to what is within the limits."""
        now = self._clock()
        while entries.finished and (
            len(entries.finished) > self._max_results
            or entries.bytes > self._max_bytes
            or now >= next(iter(entries.finished.values())).expires
        ):
            entries.forget_oldest()
