"""A search in a task of its own, streamed while it runs to a reader that may be slow.

Nothing waits for the reader but the branches themselves, which the search's tree holds anyway: that
is bounded by the search's own budget, and the search never waits for the reader. Events are made
when the reader takes the next one, so that running totals are those of the moment."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from typing import Any

from stepback_core.events import ProgressEvent, ResultEvent, StartedEvent
from stepback_core.schemas import SolveResult
from stepback_server.search.tree import Branch
from stepback_server.solve.events import EventWriter


class Feed:
    """Branches that a search leaves for its reader."""

    def __init__(self) -> None:
        self.branches = deque[Branch]()
        """Branches that the reader has not taken yet, in the order in which they ended."""
        self.beginning: tuple[StartedEvent, EventWriter] | None = None
        """First event and writer of the others; None until the search begins."""
        self.is_joined = False
        """True if the search is another request's: then there is the result alone."""
        self._news = asyncio.Event()

    def begin(self, started: StartedEvent, event_writer: EventWriter) -> None:
        """The search begins; `event_writer` makes events of what is recorded from now on."""
        self.beginning = started, event_writer
        self.wake()

    def record(self, branch: Branch) -> None:
        self.branches.append(branch)
        self.wake()

    def wake(self) -> None:
        """Let the reader look."""
        self._news.set()

    async def news(self, seconds: float | None = None) -> bool:
        """Wait for news, at most `seconds`. Return True if there are any."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        # Looked at after the wait: news may come at the very moment of the timeout.
        woken = self._news.is_set()
        self._news.clear()
        return woken


SolveLive = Callable[[Feed], Coroutine[Any, Any, SolveResult]]
"""Searches, and feeds a reader meanwhile."""


class LiveSearch:
    """A search that runs, and its reader's place among the events. `close` it in any case."""

    def __init__(
        self,
        solve: SolveLive,
        *,
        heartbeat_seconds: float = 10.0,
        usage_seconds: float = 0.25,
    ) -> None:
        """`solve` begins at once. `usage_seconds` lie at least between two running totals."""
        self._heartbeat_seconds = heartbeat_seconds
        self._usage_seconds = usage_seconds
        self._feed = Feed()
        self._task = asyncio.create_task(solve(self._feed))
        # A search that fails before its first branch must wake the reader too.
        self._task.add_done_callback(lambda _: self._feed.wake())

    @property
    def is_joined(self) -> bool:
        """Tell whether it is another request's search. Known after `begin`."""
        return self._feed.is_joined

    async def begin(self) -> None:
        """Wait until the search begins, but no longer than silence may last.

        Raises what kept it from beginning by then; cancelling ends it.
        """
        try:
            await self._feed.news(self._heartbeat_seconds)
            # Awaiting raises what it failed of, before any header is sent.
            if self._task.done() and self._feed.beginning is None:
                await self._task
        except BaseException:
            await self.close()
            raise

    async def events(self) -> AsyncGenerator[ProgressEvent | None]:
        """Yield `started`, the events of the search, and `result`; None after a long silence.
        Raises what the search raises, after all events before it. Read it once, after `begin`."""
        feed = self._feed
        while feed.beginning is None:
            if self._task.done():
                self._task.result()
            if not await feed.news(self._heartbeat_seconds):
                yield None
        started, event_writer = feed.beginning
        began = time.monotonic()
        yield started
        usage_due, is_untold = began + self._usage_seconds, False
        while feed.branches or not self._task.done():
            if feed.branches:
                for event in event_writer.tell(feed.branches.popleft()):
                    yield event
                is_untold = True
                await asyncio.sleep(0)  # What has piled up may be much; let others run too.
            else:
                # Totals come at most every `usage_seconds`, and never without a branch that they do
                # not tell of yet.
                until_due = max(0.0, usage_due - time.monotonic())
                came = await feed.news(until_due if is_untold else self._heartbeat_seconds)
                if not came and not is_untold:
                    yield None
            if is_untold and (now := time.monotonic()) >= usage_due:
                yield event_writer.usage(now - began)
                usage_due, is_untold = now + self._usage_seconds, False
        yield ResultEvent(result=self._task.result())

    async def ended(self) -> None:
        """Wait until the search has ended, whether its reader knows or not."""
        await asyncio.wait({self._task})

    async def close(self) -> None:
        """End the search, if it still runs."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
