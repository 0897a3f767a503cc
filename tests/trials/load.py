"""A mixed load: requests of every kind, each of which knows how it has to end."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

import httpx

from stepback_client.events import aread_events
from stepback_core.events import ResultEvent
from stepback_core.schemas import SolveResult
from tests.trials.asked import as_task, random_search
from tests.trials.base import Controller, problem

HANG_SECONDS = 60.0
"""No request of this load takes as long, unless nobody works on it: each has its deadline."""
OWNERS = ("alice", "bob")
LIMITED = "carol"
LIMITS = {"max_searches": 1, "tokens_per_minute": 2000}
LONG: dict[str, Any] = {
    "strategy": "self_backtracking",
    "select": "perplexity",
    "breadth": 64,
    "backtracks": 16,
}
GOOD: dict[str, Any] = as_task(problem(1))
BAD: list[tuple[int, dict[str, Any]]] = [
    (422, GOOD | {"breadth": 0}),
    (422, GOOD | {"breadth": 257}),
    (422, GOOD | {"temperature": 3.0, "stream": True}),
    (422, GOOD | {"colour": "red"}),
    (422, GOOD | {"strategy": "guess"}),
    (422, {"task": "countdown", "problem": {"numbers": [1], "target": 5}}),
    (422, {"prompt": "countdown:<backtrack>"}),
    (404, GOOD | {"task": "chess"}),
    (404, GOOD | {"model": "another", "stream": True}),
]


class Wrong(Exception):
    """An answer that is not what was asked for."""


@dataclass
class Tally:
    """Ends of the requests."""

    ended: Counter[tuple[str, str]] = field(default_factory=lambda: Counter())
    """Count of requests by their kind and their end."""
    seconds: list[float] = field(default_factory=lambda: [])
    """Seconds that each request took."""
    faults: list[str] = field(default_factory=lambda: [])
    searched: int = 0
    """Searches that were answered, each once."""
    refused: int = 0
    hung_up: int = 0
    """Requests whose caller left, whatever the server had done by then."""


class Load:
    """The requests, one method a kind; each gives the word for how it ended, or raises."""

    def __init__(self, target: Controller, http: httpx.AsyncClient, random: Random) -> None:
        self._target = target
        self._http = http
        self._random = random
        self._numbers = count()
        self.tally = Tally()
        self._kinds: dict[str, tuple[int, Callable[[], Awaitable[str]]]] = {
            "plain": (30, self._plain),
            "streamed": (20, self._streamed),
            "streamed, slow reader": (5, self._slowly),
            "hang-up": (10, self._hang_up),
            "hang-up in mid-stream": (10, self._hang_up_in_stream),
            "deadline": (5, self._deadline),
            "bad request": (10, self._bad),
            "unknown key": (3, self._unknown_key),
            "repeated, side by side": (5, self._repeated),
            "limited key": (5, self._limited),
        }

    async def work(self, ends: float) -> None:
        """Send one request after the other until `ends`, a monotonic time."""
        kinds = list(self._kinds)
        weights = [weight for weight, _ in self._kinds.values()]
        while time.monotonic() < ends:
            [kind] = self._random.choices(kinds, weights)
            started = time.monotonic()
            self.tally.ended[kind, await self._end_of(kind)] += 1
            self.tally.seconds.append(time.monotonic() - started)

    async def _end_of(self, kind: str) -> str:
        try:
            async with asyncio.timeout(HANG_SECONDS):
                return await self._kinds[kind][1]()
        except TimeoutError:
            end, why = "hung", f"{HANG_SECONDS:.0f} s"
        except httpx.HTTPError as error:
            end, why = "lost", repr(error)
        except Exception as error:  # Whatever it is, it is this request's end, and told below.
            end, why = "wrong", repr(error)
        self.tally.faults.append(f"{kind}: {end}: {why}")
        return end

    def _owner(self) -> dict[str, str]:
        return self._target.headers(self._random.choice(OWNERS))

    async def _plain(self) -> str:
        asked = random_search(self._random, next(self._numbers))
        answer = await self._http.post("/solve", json=asked.body, headers=self._owner())
        await _expect(answer, 200)
        result = SolveResult.model_validate_json(answer.content)
        self.tally.searched += 1
        return _checked(asked.faults(result))

    async def _streamed(self, pause: float = 0.0) -> str:
        asked = random_search(self._random, next(self._numbers))
        body = asked.body | {"stream": True}
        events: list[Any] = []
        async with self._http.stream("POST", "/solve", json=body, headers=self._owner()) as answer:
            await _expect(answer, 200)
            async for event in aread_events(answer):
                events.append(event)
                await asyncio.sleep(pause)
        first, *_, last = events
        self.tally.searched += 1
        if first.type != "started" or not isinstance(last, ResultEvent):
            raise Wrong(f"a stream from {first.type} to {last.type}")
        return _checked(asked.faults(last.result))

    async def _slowly(self) -> str:
        return await self._streamed(pause=0.02)

    async def _hang_up(self) -> str:
        body = GOOD | LONG if self._random.random() < 0.5 else self._any_body()
        self.tally.hung_up += 1
        call = self._http.post("/solve", json=body, headers=self._owner())
        try:
            answer = await asyncio.wait_for(call, self._random.uniform(0.0, 1.5))
        except TimeoutError:
            return "hung up"
        await _expect(answer, 200)
        return "was answered before"

    async def _hang_up_in_stream(self) -> str:
        body = (GOOD | LONG if self._random.random() < 0.5 else self._any_body()) | {"stream": True}
        left, came = self._random.randrange(20_000), 0
        self.tally.hung_up += 1
        async with self._http.stream("POST", "/solve", json=body, headers=self._owner()) as answer:
            await _expect(answer, 200)
            async for part in answer.aiter_raw():
                came += len(part)
                if came > left:
                    return "hung up"
        return "was answered before"

    async def _deadline(self) -> str:
        seconds = self._random.choice([0.05, 0.2, 1.0])
        body = GOOD | LONG | {"budget": {"seconds": seconds}}
        answer = await self._http.post("/solve", json=body, headers=self._owner())
        await _expect(answer, 200)
        result = SolveResult.model_validate_json(answer.content)
        self.tally.searched += 1
        late = result.usage.seconds_searching - seconds
        if result.stop_reason != "deadline" or late > 2:
            raise Wrong(f"{result.stop_reason}, {late:.1f} s past the deadline")
        return "ended by it"

    async def _bad(self) -> str:
        status, body = self._random.choice(BAD)
        answer = await self._http.post("/solve", json=body, headers=self._owner())
        self.tally.refused += 1
        await _expect(answer, status)
        return "refused"

    async def _unknown_key(self) -> str:
        headers = {"Authorization": f"Bearer {'x' * self._random.randrange(1, 99)}"}
        answer = await self._http.post("/solve", json=self._any_body(), headers=headers)
        self.tally.refused += 1
        await _expect(answer, 401)
        return "refused"

    async def _repeated(self) -> str:
        number = next(self._numbers)
        asked = random_search(self._random, number)
        headers = self._owner() | {"Idempotency-Key": f"soak-{number}"}
        post = self._http.post
        answers = await asyncio.gather(
            *(post("/solve", json=asked.body, headers=headers) for _ in range(3))
        )
        for answer in answers:
            await _expect(answer, 200)
        self.tally.searched += 1
        replayed = sum("Idempotent-Replayed" in answer.headers for answer in answers)
        if replayed != 2 or len({answer.content for answer in answers}) != 1:
            raise Wrong(f"{replayed} of three were one and the same")
        return _checked(asked.faults(SolveResult.model_validate_json(answers[0].content)))

    async def _limited(self) -> str:
        headers = self._target.headers(LIMITED)
        answer = await self._http.post("/solve", json=self._any_body(), headers=headers)
        if answer.status_code == 429 and answer.headers.get("Retry-After", "").isdigit():
            self.tally.refused += 1
            return "refused with 429"
        await _expect(answer, 200)
        self.tally.searched += 1
        return "right"

    def _any_body(self) -> dict[str, Any]:
        return random_search(self._random, next(self._numbers)).body


async def _expect(answer: httpx.Response, status: int) -> None:
    if answer.status_code != status:
        await answer.aread()
        raise Wrong(f"HTTP {answer.status_code} for {status}: {answer.text[:300]}")


def _checked(faults: list[str]) -> str:
    if faults:
        raise Wrong(f"another's, or untrue: {', '.join(faults)}")
    return "right"
