"""Running coroutines side by side, and answering for them as one."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, cast


async def run_all(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run them all; when one fails, cancel the rest and raise its error, bare of its group."""
    try:
        async with asyncio.TaskGroup() as group:
            for coroutine in coroutines:
                group.create_task(coroutine)
    except ExceptionGroup as errors:
        # Several siblings often meet the same fault; the caller needs it once.
        raise _first_leaf(errors) from None


def _first_leaf(group: ExceptionGroup[Exception]) -> Exception:
    first = group.exceptions[0]
    if isinstance(first, ExceptionGroup):
        return _first_leaf(cast("ExceptionGroup[Exception]", first))
    return first
