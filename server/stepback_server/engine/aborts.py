"""Aborting requests of one vLLM server by their names."""

import asyncio
from contextlib import suppress

import aiohttp

from stepback_server.engine.completions import ABORT_PATH

# How long an abort by name is tried before the connection is dropped instead: a search must end
# within moments of its deadline, also where a router brings its aborts to another server.
_SECONDS = 0.3
_BETWEEN = 0.02


class Aborts:
    """Aborts of requests at a vLLM server; those of the same moment share one HTTP call."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        """The session is closed with this."""
        self._session = session
        self._address = f"{url}{ABORT_PATH}"
        self._names: set[str] = set()
        # The call that is about to be made, which others may still join.
        self._next: asyncio.Task[bool] | None = None

    async def abort(self, name: str) -> None:
        """Have a request aborted, so that the server streams the part so far, until cancelled.

        Returns where the server does not: then the connection must be dropped.
        """
        self._names.add(name)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_SECONDS):
                    # Again and again: vLLM ignores names that are still on their way in.
                    while await self._call():  # noqa: ASYNC110
                        await asyncio.sleep(_BETWEEN)
        finally:
            self._names.discard(name)

    async def _call(self) -> bool:
        """Send one call for everything that is to be aborted by now. True if the server took it."""
        if self._next is None:
            self._next = asyncio.create_task(self._post())
        # Shielded: one caller that is cancelled must not end the call of the others.
        return await asyncio.shield(self._next)

    async def _post(self) -> bool:
        await asyncio.sleep(0)  # other aborts of this moment join
        # Names that come from here on need another call: this one's list is read now.
        self._next = None
        if not self._names:
            return True
        # How vLLM 0.32 names a completion request of one prompt.
        ids = [f"cmpl-{name}-0" for name in self._names]
        try:
            async with self._session.post(
                self._address,
                json={"request_ids": ids},
                timeout=aiohttp.ClientTimeout(total=_SECONDS),
                allow_redirects=False,
            ) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def close(self) -> None:
        await self._session.close()
