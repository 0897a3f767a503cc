"""Events of one background search on their way into the database, a few rows a second."""

import asyncio
import logging
from types import TracebackType
from typing import Self

from stepback_core.events import ResultEvent, SolveEvent
from stepback_server.jobs.searches import Searches
from stepback_server.storage.errors import StorageUnavailable

_log = logging.getLogger(__name__)
_SECONDS = 0.25
_SECONDS_TO_TRY_AGAIN = 1.0


class EventLog:
    """Collects a search's events and keeps them; a context manager around the search."""

    def __init__(self, searches: Searches, owner: str, number: int) -> None:
        self._searches = searches
        self._owner = owner
        self._number = number
        self._next = 0
        self._waiting: list[SolveEvent] = []
        self._unkept: list[SolveEvent] = []
        """Events under numbers of their own, which the database has not confirmed."""
        self._news = asyncio.Event()
        self._is_closed = False
        self._task: asyncio.Task[None] | None = None

    def add(self, event: SolveEvent) -> None:
        """Take an event."""
        # The result is none of ours: it is kept with the job itself.
        if not isinstance(event, ResultEvent):
            self._waiting.append(event)
            self._news.set()

    async def __aenter__(self) -> Self:
        # A search that is begun again goes on counting: readers resume by number.
        self._next = await self._searches.next_event(self._number)
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._task is not None
        self._is_closed = True
        self._news.set()
        await self._task

    async def _run(self) -> None:
        while not self._is_closed:
            await self._news.wait()
            await self._flush()
            if not self._is_closed:
                await asyncio.sleep(_SECONDS)
        # Through an outage too: a reader must find no gap before the result.
        while not await self._flush():  # noqa: ASYNC110 - the database rings no bell
            await asyncio.sleep(_SECONDS_TO_TRY_AGAIN)

    async def _flush(self) -> bool:
        """Write what waits; False where it goes on waiting for the database."""
        self._news.clear()
        # Those of a failed write alone, as they were: they may be kept under their numbers already.
        if not self._unkept:
            self._unkept, self._waiting = self._waiting, []
        if not self._unkept:
            return True
        try:
            await self._searches.append(self._owner, self._number, self._next, self._unkept)
        except StorageUnavailable as error:
            _log.warning("events wait for the database: %s", error)
            self._news.set()
            return False
        self._next += len(self._unkept)
        self._unkept = []
        if self._waiting:
            self._news.set()
        return not self._waiting
