"""However a search ends, the embedded vLLM works for it no longer, by vLLM's own gauge."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import httpx
import pytest

BODY = {"task": "countdown", "problem": {"numbers": [3, 5, 7, 25], "target": 41}, "breadth": 256}
LONG = BODY | {"strategy": "self_backtracking", "select": "perplexity", "backtracks": 16}
LONGEST_SECONDS = 0.5

End = Callable[[httpx.AsyncClient, asyncio.Task[httpx.Response]], Awaitable[None]]


async def gauge(http: httpx.AsyncClient) -> float:
    lines = (await http.get("/metrics")).text.splitlines()
    name = "vllm:num_requests_running{"
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


async def until(http: httpx.AsyncClient, is_running: bool, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (await gauge(http) > 0) is not is_running:
        assert time.monotonic() < deadline, f"after {seconds} s: {await gauge(http)} run"
        await asyncio.sleep(0.01)


async def hang_up(http: httpx.AsyncClient, call: asyncio.Task[httpx.Response]) -> None:
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)


def stops_for(reason: str) -> End:
    async def end(http: httpx.AsyncClient, call: asyncio.Task[httpx.Response]) -> None:
        assert (await call).json()["stop_reason"] == reason

    return end


@pytest.mark.parametrize(
    ("body", "end"),
    [
        pytest.param(LONG, hang_up, id="hang-up"),
        pytest.param(LONG | {"budget": {"seconds": 0.5}}, stops_for("deadline"), id="deadline"),
        pytest.param(
            BODY | {"strategy": "best_of_n", "select": "verified", "temperature": 1.0},
            stops_for("solved"),
            id="win",
        ),
    ],
)
def test_vllms_own_gauge_is_zero_within_half_a_second(
    server: str, body: dict[str, object], end: End
) -> None:
    async def scenario() -> None:
        async with httpx.AsyncClient(base_url=server, timeout=60) as http:
            call = asyncio.create_task(http.post("/solve", json=body))
            await until(http, is_running=True, seconds=10)
            assert not call.done(), "the search ended before it was seen running"
            await end(http, call)
            await until(http, is_running=False, seconds=LONGEST_SECONDS)

    asyncio.run(scenario())
