"""Many searches of one call, few at once, answered in order of ending."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from typing import Any

from stepback_core.schemas import SolveResult

Ended = tuple[int, SolveResult | Exception]
"""A row's place, and its result or what it failed of."""


class BatchRun:
    """Searches that run, and their reader's place in what has ended. `close` it in any case."""

    def __init__(
        self,
        solve: Callable[[int], Coroutine[Any, Any, SolveResult]],
        rows: int,
        *,
        at_once: int,
        heartbeat_seconds: float = 10.0,
    ) -> None:
        """`solve` is called with the place of each row, for at most `at_once` rows at a time."""
        self._solve = solve
        self._count = rows
        self._heartbeat_seconds = heartbeat_seconds
        # One iterator for all workers: each takes the next row as it becomes free, so no long row
        # holds up others.
        self._waiting = iter(range(rows))
        self._ended = asyncio.Queue[Ended]()
        self._workers = [
            asyncio.create_task(self._work()) for _ in range(max(1, min(at_once, rows)))
        ]

    async def _work(self) -> None:
        for place in self._waiting:
            try:
                result: SolveResult | Exception = await self._solve(place)
            except Exception as error:  # a failing row is a row, and does not fail the others
                result = error
            self._ended.put_nowait((place, result))

    async def rows(self) -> AsyncGenerator[Ended | None]:
        """Each row once, in order of ending; None if nothing ended for long."""
        for _ in range(self._count):
            ended: Ended | None = None
            while ended is None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._heartbeat_seconds):
                        ended = await self._ended.get()
                if ended is None:
                    yield None
            yield ended

    async def ended(self) -> None:
        """Wait until every search has ended, whether the reader has taken the results or not."""
        await asyncio.wait(self._workers)

    async def close(self) -> None:
        """End the searches that still run."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
