"""Addresses of engines, and names that stand for a changing number of them."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Collection, Sequence
from urllib.parse import urlsplit

_log = logging.getLogger(__name__)

PREFIX = "dns+"
# A resolver that hangs holds up the others too: all names are looked up together.
_SECONDS_TO_RESOLVE = 10.0

Resolve = Callable[[str, int], Awaitable[Collection[str]]]
"""Finds the addresses of a host name and a port. Raises OSError."""


async def resolve_name(host: str, port: int) -> Collection[str]:
    """Ask the system's resolver. Raises OSError."""
    loop = asyncio.get_running_loop()
    # Else each address comes once for every kind of socket.
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return {str(address[0]) for *_, address in found}


class Discovery:
    """The engines that the settings name now. `dns+http://NAME:PORT` is one engine an address."""

    def __init__(self, urls: Sequence[str], resolve: Resolve = resolve_name) -> None:
        self.fixed = tuple(url for url in urls if not url.startswith(PREFIX))
        self.names = tuple(url for url in urls if url.startswith(PREFIX))
        self._resolve = resolve
        self._known: dict[str, frozenset[str]] = {}
        """The URLs of each name, as of its last answer."""

    async def look(self) -> frozenset[str]:
        """Resolve every name, and return the URLs of all engines. A name without an answer keeps
        the engines that it had: an outage of DNS ends none."""
        await asyncio.gather(*(self._look_up(name) for name in self.names))
        return frozenset(self.fixed).union(*self._known.values())

    async def _look_up(self, name: str) -> None:
        parts = urlsplit(name.removeprefix(PREFIX))
        port = parts.port or 80
        try:
            async with asyncio.timeout(_SECONDS_TO_RESOLVE):
                addresses = await self._resolve(parts.hostname or "", port)
        except (OSError, TimeoutError) as error:
            _log.warning("%s does not resolve (%s): its engines stay", name, error)
            return
        # An empty answer is an outage too: a Service without ready pods resolves to nothing.
        if addresses:
            urls = (f"http://{_host(each)}:{port}{parts.path}" for each in addresses)
            self._known[name] = frozenset(urls)


def _host(address: str) -> str:
    # IPv6 in a URL stands in brackets.
    return f"[{address}]" if ":" in address else address
