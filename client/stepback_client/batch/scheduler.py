"""Many questions to a controller, a bounded number in flight, each outcome kept as it comes.

Stopped   by its user, or by an error: its cause
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Generic, TypeVar

from stepback_client.errors import StepbackError
from stepback_client.retry import Retry
from stepback_core.schemas import SolveResult, StopReason

Q = TypeVar("Q")
A = TypeVar("A")

PATIENCE = Retry(attempts=10, first_wait=0.5, longest_wait=30.0, patience=600.0)
"""About two minutes: an engine that died is up again by then; or what the server asks for."""
# Seconds that other searches may still take: one that is being tried again may take minutes.
_AFTER_A_FAILURE = 20.0


class Stopped(Exception):
    """The asking was stopped before its end, by its user or by an error, its cause. What was done
    is kept."""


async def ask_each(
    questions: Iterable[Q],
    ask: Callable[[Q], Awaitable[A]],
    keep: Callable[[Q, A], None],
    *,
    in_flight: int,
    stop: asyncio.Event,
) -> None:
    """Ask each question, and keep what came of it at once, until `stop` is set or one fails.

    Raises Stopped, once what was in flight has come back, or has taken too long after a failure.
    """
    await _Flight(questions, ask, keep, stop).go(in_flight)


class _Flight(Generic[Q, A]):
    def __init__(
        self,
        questions: Iterable[Q],
        ask: Callable[[Q], Awaitable[A]],
        keep: Callable[[Q, A], None],
        stop: asyncio.Event,
    ) -> None:
        self._left = iter(questions)
        self._ask = ask
        self._keep = keep
        self._stop = stop
        self._failure: Exception | None = None
        self._limit = asyncio.timeout(None)

    async def go(self, in_flight: int) -> None:
        with suppress(TimeoutError):  # of the limit, which only `_fail` sets
            async with self._limit, asyncio.TaskGroup() as group:
                for _ in range(in_flight):
                    group.create_task(self._ask_on())
        if self._stop.is_set():
            raise Stopped from self._failure

    async def _ask_on(self) -> None:
        """Ask the questions that are left, one after the other."""
        for question in self._left:
            if self._stop.is_set():
                return
            try:
                self._keep(question, await self._ask(question))
            except (StepbackError, OSError) as error:
                self._fail(error)
                return

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
            self._limit.reschedule(asyncio.get_running_loop().time() + _AFTER_A_FAILURE)
        self._stop.set()


def finished(result: SolveResult) -> SolveResult:
    """A search that came to its end. Raises StepbackError for one that was not let finish."""
    if result.stop_reason is StopReason.CANCELLED:
        raise StepbackError("the controller is stopping and gave a search up; start it again")
    return result
