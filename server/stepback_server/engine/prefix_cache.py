"""Forgetting vLLM's prefix cache after new weights."""

import asyncio
from collections.abc import Awaitable, Callable

from stepback_server.engine.base import ReloadFailed

# Two seconds in all.
_RESETS = 100
_POLL_SECONDS = 0.02


async def forget_prefixes(engine: str, reset: Callable[[], Awaitable[bool]]) -> None:
    """Call `reset` until it returns True. Raises ReloadFailed, which names the engine."""
    # vLLM refuses while a sequence holds a block, as one just aborted may for a moment.
    for _ in range(_RESETS):
        if await reset():
            return
        await asyncio.sleep(_POLL_SECONDS)
    raise ReloadFailed(f"{engine} does not forget what it cached of the old weights")
