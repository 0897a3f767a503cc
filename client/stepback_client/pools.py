"""Connections of asyncio, which belong to one event loop of one process."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from weakref import WeakKeyDictionary

import httpx

_Pool = AsyncGenerator[httpx.AsyncClient]
_Pools = WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[_Pool, httpx.AsyncClient]]


class PoolOfEachLoop:
    """A pool for each event loop that asks for one. It closes with its loop, if not before."""

    def __init__(self, open_pool: Callable[[], httpx.AsyncClient]) -> None:
        """Open the first pool, which has no connection yet. Raises what `open_pool` raises."""
        self._open_pool = open_pool
        self._forget()
        # Here, and not for the first loop, so that what cannot be used is refused where it is
        # given.
        self._first = [open_pool()]

    async def get(self) -> httpx.AsyncClient:
        """The pool of the running loop."""
        if self._process != os.getpid():  # a fork shares the parent's sockets, so leave them alone
            self._forget()
        loop = asyncio.get_running_loop()
        if loop not in self._pools:
            closing = _until_closed(self._next_pool())
            # Nothing is awaited before its `yield`, so no other task comes between.
            # A weak key: a loop that is gone must not be kept alive by its connections.
            self._pools[loop] = (closing, await anext(closing))
        return self._pools[loop][1]

    async def close(self) -> None:
        """Close the connections of the running loop."""
        if (pool := self._pools.pop(asyncio.get_running_loop(), None)) is not None:
            await pool[0].aclose()

    def _next_pool(self) -> httpx.AsyncClient:
        try:
            # Loops of several threads may ask at once: pop gives it to one of them.
            return self._first.pop()
        except IndexError:
            return self._open_pool()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._pools = WeakKeyDictionary[
            asyncio.AbstractEventLoop, tuple[_Pool, httpx.AsyncClient]
        ]()


async def _until_closed(pool: httpx.AsyncClient) -> _Pool:
    # A loop that ends (asyncio.run) finishes the generators that began in it, and with this one it
    # closes the sockets while they still can be.
    try:
        yield pool
    finally:
        await pool.aclose()
