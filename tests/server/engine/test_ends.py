"""However a search ends, no vLLM works for it any longer, by vLLM's own gauges."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.conftest import held_out
from tests.server.engine.conftest import Fleet

BODY = {"task": "countdown", "problem": {"numbers": [3, 5, 7, 25], "target": 41}, "breadth": 256}
LONG = BODY | {"strategy": "self_backtracking", "select": "perplexity", "backtracks": 16}
LONGEST_SECONDS = 30
GAUGES = ("vllm:num_requests_running{", "vllm:num_requests_waiting{")

Call = asyncio.Task[httpx.Response]
End = Callable[[Call], Awaitable[None]]


@dataclass(frozen=True)
class Served:
    """A controller, and where its engines tell their metrics."""

    url: str
    engines: tuple[str, ...]

    async def gauge(self, http: httpx.AsyncClient) -> float:
        """The requests that run or wait, everywhere."""
        texts = [(await http.get(f"{url}/metrics")).text for url in self.engines]
        lines = [line for text in texts for line in text.splitlines() if line.startswith(GAUGES)]
        assert len(lines) >= len(GAUGES) * len(self.engines)
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    async def until_idle(self, http: httpx.AsyncClient) -> None:
        deadline = time.monotonic() + LONGEST_SECONDS
        while at_work := await self.gauge(http):
            assert time.monotonic() < deadline, f"{at_work} after {LONGEST_SECONDS} s"
            await asyncio.sleep(0.05)

    async def was_seen(self, http: httpx.AsyncClient, call: Call) -> bool:
        """Wait for an engine to be at work, or for the answer."""
        while not call.done():
            if await self.gauge(http):
                return not call.done()
            await asyncio.sleep(0.03)
        return False


@pytest.fixture(params=["embedded", "remote"])
def served(request: pytest.FixtureRequest) -> Served:
    if request.param == "embedded":
        url: str = request.getfixturevalue("server")
        return Served(url, (url,))
    fleet: Fleet = request.getfixturevalue("fleet")
    return Served(fleet.url, tuple(each.url for each in fleet.servers))


async def hang_up(call: Call) -> None:
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)


def stops_for(reason: str) -> End:
    async def end(call: Call) -> None:
        assert (await call).json()["stop_reason"] == reason

    return end


@pytest.mark.parametrize(
    ("body", "end"),
    [
        pytest.param(LONG, hang_up, id="hang-up"),
        pytest.param(LONG | {"budget": {"seconds": 1.0}}, stops_for("deadline"), id="deadline"),
        pytest.param(
            BODY | {"strategy": "best_of_n", "select": "verified", "temperature": 1.0},
            stops_for("solved"),
            id="win",
        ),
    ],
)
def test_nothing_runs_or_waits_half_a_second_after_the_end(
    served: Served, body: dict[str, Any], end: End
) -> None:
    async def scenario() -> None:
        async with httpx.AsyncClient(timeout=300) as http:
            await served.until_idle(http)
            call = asyncio.create_task(http.post(f"{served.url}/solve", json=body))
            assert await served.was_seen(http, call), "it ended before it was seen at work"
            await end(call)
            await served.until_idle(http)

    asyncio.run(scenario())


def test_nor_after_the_wins_of_the_default_search(served: Served) -> None:
    async def scenario() -> int:
        wins = 0
        async with httpx.AsyncClient(timeout=300) as http:
            for problem in held_out(12):
                body = {"task": "countdown", "problem": problem.model_dump()}
                call = asyncio.create_task(http.post(f"{served.url}/solve", json=body))
                was_seen = await served.was_seen(http, call)
                result = (await call).json()
                await served.until_idle(http)
                wins += was_seen and result["stop_reason"] == "solved"
        return wins

    assert asyncio.run(scenario()) >= 3
