"""Tries of one job: again while there is no answer, until several engines were lost with it."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from typing import TypeVar

from stepback_server.errors import engine_lost
from stepback_server.jobs.job import NotNow

T = TypeVar("T")

MOST_LOSSES = 3
# Seconds; an engine may say that it comes back later, and come sooner.
_LONGEST_WAIT = 30.0


class Tries:
    """Tries of all jobs of a process: they share its engines."""

    def __init__(self) -> None:
        # One job that kills engines takes with it what else is in flight. The last try is made
        # without others that lost engines: it tells the one from those beside it.
        self._turn = asyncio.Lock()
        self._suspects = 0
        self._no_suspects = asyncio.Event()
        self._no_suspects.set()
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """Make no second tries any more: a job that has to wait for one is another process's."""
        self._stopped.set()

    async def until_answered(
        self, ask: Callable[[], Awaitable[T]], *, may_leave: bool = False
    ) -> T:
        """Ask until there is an answer. Raises ApiError where engines were lost with it three
        times, what `ask` raises besides NotNow, and NotNow after `stop`. `may_leave`: NotNow too,
        where the job's key has to wait, and others need not."""
        losses, why = 0, None
        while losses < MOST_LOSSES:
            async with self._place(losses):
                if why:
                    # Whoever had the place may have kept it until a stop.
                    self._go_on_unless_stopped(why, losses)
                try:
                    return await ask()
                except NotNow as later:
                    # One with losses stays: they would be forgotten with its place.
                    if may_leave and later.is_for_key and not losses:
                        raise
                    losses += later.is_loss
                    why = later
                    if later.is_loss:
                        # Within the lock: who came next would meet the same dead engine, before its
                        # supervisor has seen that.
                        await self._pause(later, losses)
                        continue
            await self._pause(why, losses)
        raise engine_lost(losses)

    async def _pause(self, later: NotNow, losses: int) -> None:
        """Wait before another try. Raises what was to be waited for where there will be none."""
        with suppress(TimeoutError):
            async with asyncio.timeout(min(later.seconds, _LONGEST_WAIT)):
                await self._stopped.wait()
        self._go_on_unless_stopped(later, losses)

    def _go_on_unless_stopped(self, later: NotNow, losses: int) -> None:
        # After the last loss there is an answer, and a stop does not take it back.
        if self._stopped.is_set() and losses < MOST_LOSSES:
            raise later

    def _place(self, losses: int) -> AbstractAsyncContextManager[None]:
        if not losses:
            return nullcontext()
        return self._beside_others() if losses < MOST_LOSSES - 1 else self._alone()

    @asynccontextmanager
    async def _beside_others(self) -> AsyncGenerator[None]:
        # Through the lock, so that who waits to be alone is not overtaken for ever.
        async with self._turn:
            self._suspects += 1
            self._no_suspects.clear()
        try:
            yield
        finally:
            self._suspects -= 1
            if not self._suspects:
                self._no_suspects.set()

    @asynccontextmanager
    async def _alone(self) -> AsyncGenerator[None]:
        async with self._turn:
            await self._no_suspects.wait()
            yield
