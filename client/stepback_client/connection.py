"""The way to a server: address, headers, timeouts, proxy. Both clients open their pools by it."""

import re
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from stepback_client.errors import BadSetting, InvalidKey
from stepback_client.proxies import proxy_for
from stepback_core.schemas.request import LONGEST_SECONDS

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8000"
# An hour, the longest that a server's settings allow in its queue, and a minute to spare.
_BESIDES_SEARCHING = 3660.0
DEFAULT_TIMEOUT = httpx.Timeout(LONGEST_SECONDS + _BESIDES_SEARCHING, connect=5.0)
"""Timeout of a search: the longest that any server allows, and the longest queue before it.

Where a call names its `seconds`, these count instead. Nobody waits so long for a dead server. The
connection's own probes find it in six minutes."""
# Of a stream, and of what is answered at once. A server is never silent for over ten seconds there,
# but a gateway may hold back what it sends.
_SILENCE_SECONDS = 720.0
# Idle connections are dropped before a server's or a gateway's 5 s, so that none is reused as it
# closes.
_LIMITS = httpx.Limits(max_connections=256, keepalive_expiry=4.0)
_KEY = re.compile(r"[!-~]+")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[!-~]([\t -~]*[!-~])?|")
# A search is silent for minutes: routers forget such a connection, and a dead peer is not noticed.
_KEEP_ALIVE: list[tuple[int, int, int]] = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5))
        if hasattr(socket, name)
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Address, headers and timeouts of a server. Made by `to`, which checks it."""

    url: str
    headers: dict[str, str]
    timeout: httpx.Timeout
    follows_budget: bool
    """True if a call's timeout grows with the seconds that it asks for."""

    @classmethod
    def to(
        cls,
        url: str,
        *,
        api_key: str | None,
        headers: Mapping[str, str] | None,
        timeout: float | httpx.Timeout | None,
    ) -> "Connection":
        """The connection with everything checked. Raises BadSetting, which repeats no secret."""
        try:
            parsed = httpx.URL(url)
        except (httpx.InvalidURL, TypeError) as error:
            raise BadSetting(f"the server's address {url!r} is none: {error}") from error
        if parsed.scheme not in {"http", "https"}:
            raise BadSetting(f"the server's address {url!r} must begin with http:// or https://")
        return cls(
            url=url,
            # Checked here, where the message can leave the value out: httpx's own error would quote
            # a secret.
            headers=_checked(headers or {}) | _authorization(api_key, headers or {}),
            timeout=httpx.Timeout(timeout),
            # By identity: a caller who gives the same numbers has chosen them.
            follows_budget=timeout is DEFAULT_TIMEOUT,
        )

    def options(self) -> dict[str, Any]:
        """The arguments of an httpx client, all but its transport."""
        return {"base_url": self.url, "headers": self.headers, "timeout": self.timeout}

    def transport(self, kind: Callable[..., T]) -> T:
        """A transport of httpx, through the environment's proxy. Raises BadSetting for a proxy or
        a certificate file that cannot be used."""
        url = httpx.URL(self.url)
        proxy = proxy_for(url)
        # Without TLS nobody is to be trusted, and a variable that is wrong does no harm.
        verify = True if url.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            return kind(verify=verify, proxy=proxy, limits=_LIMITS, socket_options=_KEEP_ALIVE)
        except (httpx.InvalidURL, ValueError) as error:
            raise BadSetting("the proxy of the environment has no usable address") from error
        except OSError as error:
            raise BadSetting(f"SSL_CERT_FILE, SSL_CERT_DIR: {error}") from error

    def timeout_for(self, seconds: float | None, *, stream: bool = False) -> httpx.Timeout:
        """Return the timeout of a call that may search for `seconds`, or as long as the server
        allows.

        Raises BadSetting where the caller's own is shorter: the search would be paid for and its
        answer lost. A stream needs no more time than the longest silence.
        """
        if stream:
            return self.timeout_at_once
        if seconds is None:
            return self.timeout
        if self.follows_budget:
            return self._with_read(seconds + _BESIDES_SEARCHING)
        read = self.timeout.read
        if read is not None and read < seconds:
            raise BadSetting(
                f"seconds={seconds:g} outlasts this client's timeout of {read:g} s: give it a "
                "longer one, or none"
            )
        return self.timeout

    @property
    def timeout_at_once(self) -> httpx.Timeout:
        """The timeout of what a server answers, or goes on with, at once."""
        return self._with_read(_SILENCE_SECONDS) if self.follows_budget else self.timeout

    def _with_read(self, seconds: float) -> httpx.Timeout:
        return httpx.Timeout(**self.timeout.as_dict() | {"read": seconds})


def _authorization(api_key: str | None, headers: Mapping[str, str]) -> dict[str, str]:
    if api_key is None:
        return {}
    if not _KEY.fullmatch(api_key):
        raise InvalidKey("the API key must be printable ASCII without spaces")
    # Which of the two would win is nothing a caller should have to know.
    if "authorization" in {name.lower() for name in headers}:
        raise BadSetting("give api_key or a header Authorization, not both")
    return {"Authorization": f"Bearer {api_key}"}


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers. Raises BadSetting for one that HTTP cannot carry, without its value."""
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise BadSetting(f"the header {name!r} has no name that HTTP allows")
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise BadSetting(f"the value of the header {name} must be one line of printable ASCII")
    return dict(headers)
