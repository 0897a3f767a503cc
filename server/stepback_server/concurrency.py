"""Running coroutines side by side, and giving one up for another."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

T = TypeVar("T")


class Interrupted(Exception):
    """The work was given up, since its interruption came first."""


class Alarm:
    """Interrupts all work under it once it is rung; unlike `run_unless`, without a task."""

    def __init__(self) -> None:
        self._scopes: set[asyncio.Timeout] = set()
        self._has_rung = False

    def ring(self) -> None:
        if not self._has_rung:
            self._has_rung = True
            for scope in self._scopes:
                _expire(scope)

    @asynccontextmanager
    async def interrupts(self) -> AsyncGenerator[None]:
        """Cancel what is awaited inside, and raise Interrupted, once the alarm is rung or if it
        was."""
        # A timeout without a time: it cancels the block from outside, and tells its own
        # cancellation from the caller's.
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._scopes.add(scope)
                if self._has_rung:
                    _expire(scope)
                yield
        except TimeoutError:
            # A TimeoutError of the work itself is not ours.
            if not scope.expired():
                raise
            raise Interrupted from None
        finally:
            self._scopes.discard(scope)


def _expire(scope: asyncio.Timeout) -> None:
    scope.reschedule(asyncio.get_running_loop().time())


@asynccontextmanager
async def task_group() -> AsyncGenerator[asyncio.TaskGroup]:
    """A task group that raises the first error of its tasks bare of any group."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except ExceptionGroup as errors:
        # Several siblings often meet the same fault; the caller needs it once, with its own cause.
        first = _first_leaf(errors)
        raise first from first.__cause__


async def run_all(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run them all; when one fails, cancel the rest and raise its error. A single one takes no
    task."""
    each = list(coroutines)
    if len(each) == 1:
        await each[0]
        return
    async with task_group() as group:
        for coroutine in each:
            group.create_task(coroutine)


async def run_unless(work: Coroutine[Any, Any, T], interruption: Coroutine[Any, Any, object]) -> T:
    """Do the work; if the interruption ends first, cancel the work and raise Interrupted.

    Neither is left running, also when the caller is cancelled.
    """
    task = asyncio.ensure_future(work)
    watcher = asyncio.ensure_future(interruption)
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Interrupted
        return task.result()
    finally:
        for each in (task, watcher):
            each.cancel()
        # Until both have ended: cleaning up may take them a moment.
        await asyncio.gather(task, watcher, return_exceptions=True)


def _first_leaf(group: ExceptionGroup[Exception]) -> Exception:
    first = group.exceptions[0]
    if isinstance(first, ExceptionGroup):
        return _first_leaf(cast("ExceptionGroup[Exception]", first))
    return first
