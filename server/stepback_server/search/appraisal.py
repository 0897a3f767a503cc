"""Appraisal of new branches: verdicts and scores that take time, between engine and strategy."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from stepback_server.search.tree import Branch

Appraise = Callable[[Sequence[Branch], asyncio.Event], Awaitable[Sequence[Branch]]]
"""Adds verdicts and scores that take time to new branches, and returns the branches.

At once, as they are, when the event is set. Raises nothing."""


class Appraisals:
    """The queue before `appraise`: one call at a time, and what comes meanwhile is in the next."""

    def __init__(
        self,
        appraise: Appraise,
        appraised: Callable[[Sequence[Branch]], None],
        idle: Callable[[], None],
    ) -> None:
        """`appraised` takes the branches of each call, and `idle` is called after the last one."""
        self._appraise = appraise
        self._appraised = appraised
        self._idle = idle
        self._waiting: list[Branch] = []
        self._working: asyncio.Task[None] | None = None
        self._hurried = asyncio.Event()

    def add(self, branch: Branch) -> None:
        """Let a branch be appraised, as soon as those before it are."""
        self._waiting.append(branch)
        if not self.is_working:
            self._working = asyncio.create_task(self._work())
            self._working.add_done_callback(lambda _: self._idle())

    @property
    def is_working(self) -> bool:
        """True while a branch waits for its appraisal."""
        # result() raises what an appraisal raised: it promises to raise nothing, so that would be a
        # bug to see.
        if self._working is not None and self._working.done():
            self._working.result()
            self._working = None
        return self._working is not None

    def hurry(self) -> None:
        """End the call at work, and those to come, with what they have by then."""
        self._hurried.set()

    async def finish(self) -> None:
        """Await the appraisal of all that has been added."""
        if self._working is not None:
            await self._working

    async def close(self) -> None:
        """Give up what is at work. Gathered: a task without a waiter would log its exception."""
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)

    async def _work(self) -> None:
        while self._waiting:
            branches, self._waiting = self._waiting, []
            self._appraised(await self._appraise(branches, self._hurried))
