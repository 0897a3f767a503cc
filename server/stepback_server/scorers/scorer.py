"""One scorer: bounded calls over HTTP. None of them ever fails a search."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import aiohttp

from stepback_server.engine.handshake import say, trusted_authorities
from stepback_server.scorers.adapters import adapter_of
from stepback_server.scorers.breaker import Breaker
from stepback_server.scorers.config import Entry
from stepback_server.scorers.messages import Candidate, Opinion, Question, ScorerError

_log = logging.getLogger(__name__)
_KEEP_ALIVE_SECONDS = 2.0
_MOST_BYTES = 8 << 20
ANSWERED = "answered"
OUTCOMES = (ANSWERED, "timeout", "unreachable", "refused", "malformed", "paused")

Report = Callable[[str, str, float], None]
"""Takes a scorer's name, one of `OUTCOMES`, and the call's seconds."""


class Scorer:
    """Asks one scorer, for all searches. What it does not answer is not scored; it never raises."""

    def __init__(
        self,
        name: str,
        entry: Entry,
        headers: Mapping[str, str],
        report: Report = lambda name, outcome, seconds: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.entry = entry
        self._headers = headers
        self._adapter = adapter_of(entry)
        self._breaker = Breaker(entry.failures, entry.pause, clock)
        self._places = asyncio.Semaphore(entry.max_concurrent)
        self._report = report
        self._clock = clock

    @property
    def is_paused(self) -> bool:
        """Tell whether it has failed so often that it is left alone."""
        return self._breaker.is_open

    async def score(
        self, question: Question, candidates: Sequence[Candidate]
    ) -> dict[str, Opinion]:
        """Ask for opinions, by the candidates' ids; none for those that it failed at."""
        size = self.entry.batch
        parts = [candidates[at : at + size] for at in range(0, len(candidates), size)]
        async with asyncio.TaskGroup() as group:
            calls = [group.create_task(self._ask(question, part)) for part in parts]
        return {name: opinion for call in calls for name, opinion in call.result().items()}

    async def close(self) -> None:
        """Close its connections."""
        if "_session" in self.__dict__:
            await self._session.close()

    async def _ask(self, question: Question, part: Sequence[Candidate]) -> dict[str, Opinion]:
        async with self._places:
            if not self._breaker.permits():
                self._report(self.name, "paused", 0.0)
                return {}
            begun = self._clock()
            try:
                opinions = await self._call(question, part)
            except ScorerError as error:
                self._failed(error, self._clock() - begun)
                return {}
        self._succeeded(self._clock() - begun)
        accept = self.entry.accept
        return {name: opinion.with_threshold(accept) for name, opinion in opinions.items()}

    async def _call(self, question: Question, part: Sequence[Candidate]) -> dict[str, Opinion]:
        """Make one call. Raises ScorerError."""
        body = json.dumps(self._adapter.body(question, part)).encode()
        try:
            async with asyncio.timeout(self.entry.timeout):
                content = await self._post(body)
        except TimeoutError:
            raise ScorerError("timeout", f"no answer in {self.entry.timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise ScorerError("unreachable", f"it cannot be reached ({say(error)})") from error
        return self._adapter.read(part, content)

    async def _post(self, body: bytes) -> bytes:
        # A redirect could lead anywhere, and would be sent the token.
        async with self._session.post(self.entry.url, data=body, allow_redirects=False) as answer:
            if answer.status != 200:
                raise ScorerError("refused", f"it answers with status {answer.status}")
            content = bytearray()
            async for chunk in answer.content.iter_any():
                content += chunk
                if len(content) > _MOST_BYTES:
                    raise ScorerError("malformed", f"its answer has over {_MOST_BYTES} bytes")
            return bytes(content)

    @cached_property
    def _session(self) -> aiohttp.ClientSession:
        """Made within the event loop."""
        return aiohttp.ClientSession(
            headers={**self._headers, "Content-Type": "application/json"},
            connector=aiohttp.TCPConnector(
                limit=self.entry.max_concurrent,
                keepalive_timeout=_KEEP_ALIVE_SECONDS,
                ssl=trusted_authorities(self.entry.url),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
        )

    def _succeeded(self, seconds: float) -> None:
        if self._breaker.is_open:
            _log.info("the scorer %s answers again", self.name)
        self._breaker.succeeded()
        self._report(self.name, ANSWERED, seconds)

    def _failed(self, error: ScorerError, seconds: float) -> None:
        self._breaker.failed()
        pause = f"; it is left alone for {self.entry.pause:g} s" if self._breaker.is_open else ""
        _log.warning("the scorer %s has failed: %s%s", self.name, error, pause)
        self._report(self.name, error.outcome, seconds)
