"""A streamed search and an Idempotency-Key: who is told all of it, and who its result alone."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest

from stepback_core.schemas import StopReason
from stepback_server.app import create_app
from stepback_server.checkpoint import Checkpoint
from stepback_server.settings import Settings
from tests.asgi import NO_JOBS
from tests.conftest import CHECKPOINT
from tests.server.search.scripted import ScriptedEngine

BODY = {"prompt": "countdown:3,5=15", "strategy": "best_of_n", "breadth": 8}
STREAM = BODY | {"stream": True}
KEY = {"Idempotency-Key": "twice"}


class House:
    """A controller over an engine that takes 20 ms a sample."""

    def __init__(self, http: httpx.AsyncClient, engine: ScriptedEngine) -> None:
        self._http = http
        self._engine = engine

    @property
    def searches(self) -> int:
        return len([request for request in self._engine.requests if request.n == 8])

    async def post(self, body: dict[str, Any]) -> httpx.Response:
        return await self._http.post("/solve", json=body, headers=KEY)


def with_house(scenario: Callable[[House], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        checkpoint = Checkpoint.open(CHECKPOINT)
        end = checkpoint.codec.tokens.end_id
        engine = ScriptedEngine(lambda request, index: (end,), delay=0.02)
        app = create_app(Settings(database_url=NO_JOBS), checkpoint, lambda: engine)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://c", timeout=300
            ) as http,
        ):
            while (await http.get("/ready")).status_code != 200:  # noqa: ASYNC110 - no event for it
                await asyncio.sleep(0.01)
            await scenario(House(http, engine))

    asyncio.run(run())


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    lines = answer.text.splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def types(answer: httpx.Response) -> list[str]:
    return [event["type"] for event in events(answer)]


def test_a_result_is_told_again_as_its_beginning_and_its_end_streamed_or_not() -> None:
    async def scenario(house: House) -> None:
        first, second = await house.post(STREAM), await house.post(STREAM)
        assert len(types(first)) > 2 and types(second) == ["started", "result"]
        assert (events(second)[0], events(second)[1]) == (events(first)[0], events(first)[-1])
        plain = await house.post(BODY)
        assert plain.json() == events(first)[-1]["result"]
        replayed = [answer.headers.get("Idempotent-Replayed") for answer in (first, second, plain)]
        assert replayed == [None, "true", "true"]
        assert house.searches == 1

    with_house(scenario)


@pytest.mark.parametrize("first", [STREAM, BODY])
def test_a_search_that_runs_is_joined(first: dict[str, Any]) -> None:
    async def scenario(house: House) -> None:
        running = asyncio.create_task(house.post(first))
        while not house.searches:  # noqa: ASYNC110 - a script has no event for it
            await asyncio.sleep(0.005)
        joined = await house.post(STREAM)
        assert joined.headers["Idempotent-Replayed"] == "true"
        assert types(joined) == ["started", "result"] and house.searches == 1
        answer = await running
        result = answer.json() if first is BODY else events(answer)[-1]["result"]
        assert events(joined)[-1]["result"] == result
        assert result["stop_reason"] == StopReason.EXHAUSTED

    with_house(scenario)


def test_another_body_is_refused_before_the_stream_begins() -> None:
    async def scenario(house: House) -> None:
        await house.post(STREAM)
        refused = await house.post(STREAM | {"breadth": 4})
        assert refused.status_code == 422
        assert refused.json()["error"]["code"] == "idempotency_mismatch"

    with_house(scenario)
