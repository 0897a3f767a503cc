"""Rules of retrying a request, and of waiting for a server: for both clients, without I/O."""

import random
import time
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from itertools import count

import httpx

from stepback_client.errors import (
    StepbackError,
    TransportError,
    Unavailable,
    no_answer,
    seconds_to_wait,
)
from stepback_core.schemas import Readiness

LOST = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout, httpx.ProxyError)
"""A connection that was refused, not made or broken, the answer lost with it. A timeout of an
answer is none: its caller set it and wants to know."""
# From a proxy whose server restarts, closed a kept connection (408), or took too long; 52x and 530
# are Cloudflare's own.
_GATEWAY = frozenset({408, 502, 504, *range(520, 525), 530})
_BETWEEN_LOOKS = 0.5
# Not 500: a defect of the server would fail again.
_RETRIED = frozenset({429, 503}) | _GATEWAY

AttemptResult = httpx.Response | httpx.HTTPError
"""Response or error of one try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Retry policy for 408, 429, 502, 503, 504 and lost connections.

    A search has no side effects, so one whose engine died on the way is tried again too. One whose
    answer was lost is not paid twice by the controller that searched: each call has an
    Idempotency-Key of its own. It joins the search at any controller, where they share a database.
    """

    attempts: int = 4
    """Tries in all; 1 never tries again."""
    first_wait: float = 0.25
    """Seconds before the second try; doubled for each further one, with jitter."""
    longest_wait: float = 8.0
    """Seconds; what the doubling comes to at most."""
    patience: float = 60.0
    """Seconds. If the server asks for more, a sooner try is useless and a wait is the caller's
    decision. The error is then raised at once, and its `retry_after` says when."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError("attempts must be at least 1")

    def call_headers(self) -> dict[str, str]:
        """The headers that one call sends with each of its tries."""
        # One key for all tries of a call: a try whose answer was lost joins its own search.
        return {"Idempotency-Key": uuid.uuid4().hex} if self.attempts > 1 else {}

    def wait(self, tried: int, response: httpx.Response | None) -> float | None:
        """Seconds to wait before the next try; None to give up.

        `response` is None if the connection was refused or lost.
        """
        if tried >= self.attempts:
            return None
        if response is not None and response.status_code not in _RETRIED:
            return None
        # Jitter, or callers that were refused together would come again together.
        wait = self.first_wait * 2 ** (tried - 1) * random.uniform(0.75, 1.25)
        asked = seconds_to_wait(response.headers) if response is not None else None
        asked = asked or 0.0
        # Never sooner than the server asks, however short the doubling is.
        return None if asked > self.patience else max(min(wait, self.longest_wait), asked)


def attempts(
    retry: Retry, method: str, path: str
) -> Generator[float, AttemptResult, httpx.Response]:
    """The retry loop as a flow: yields the seconds to wait before a try, is sent what that try
    came to, and returns the answer in the end. Raises TransportError where there is none."""
    wait = 0.0
    for tried in count(1):
        outcome = yield wait
        if isinstance(outcome, httpx.Response):
            again = retry.wait(tried, outcome)
            if again is None:
                return outcome
        else:
            again = retry.wait(tried, None) if isinstance(outcome, LOST) else None
            if again is None:
                raise no_answer(method, path, outcome) from outcome
        wait = again
    raise AssertionError("count has no end")


def looks(seconds: float) -> Generator[float, Readiness | StepbackError, Readiness]:
    """The wait for a server that starts, as a flow.

    It yields the seconds to wait before a look at the readiness, and is sent what the look came to.
    It returns the readiness of a server that is ready. Where the time is over it raises the last
    error, and at once one that no wait mends.
    """
    deadline, wait = time.monotonic() + seconds, 0.0
    while True:
        found = yield wait
        if isinstance(found, Readiness):
            if found.ready:
                return found
            found = TransportError(f"not ready within {seconds:g} s: {found.reason}")
        if not isinstance(found, TransportError | Unavailable) or time.monotonic() >= deadline:
            raise found
        wait = _BETWEEN_LOOKS
