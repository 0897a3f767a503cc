"""The certificates of authorities, read once for all of a process.

httpx reads them for every client and every `httpx.get`: a thirtieth of a second of a core, and the
suite asks thousands of times, mostly while it waits for a server.
"""

import functools
import os
import ssl

import httpx
from httpx._transports import default

_NAMED_BY = ("SSL_CERT_FILE", "SSL_CERT_DIR")


@functools.cache
def _usual(trust_env: bool, *_files: str | None) -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=trust_env)


def read_once() -> None:
    """Let the clients of this process that ask for nothing else share them."""

    def context(
        verify: ssl.SSLContext | str | bool = True, cert: None = None, trust_env: bool = True
    ) -> ssl.SSLContext:
        if verify is True and cert is None:
            return _usual(trust_env, *map(os.environ.get, _NAMED_BY))
        return httpx.create_ssl_context(verify=verify, cert=cert, trust_env=trust_env)

    setattr(default, "create_ssl_context", context)  # noqa: B010 - httpx keeps the name to itself
