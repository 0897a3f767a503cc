"""Callers who leave: no search of theirs goes on."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn

from stepback_core.schemas import SolveResult
from stepback_server.api.openai.calls import begun
from stepback_server.api.protocol import PatientProtocol
from stepback_server.app import create_app
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import OnSample, SampleRequest
from stepback_server.settings import Settings
from stepback_server.solve.batch import BatchRun
from tests.asgi import NO_JOBS, listening
from tests.conftest import CHECKPOINT
from tests.server.search.scripted import ScriptedEngine

PATIENCE = 120
"""Seconds: a slow machine is no failure."""
PROMPTS = ["countdown:3,5=15", "countdown:3,5=8", "countdown:3,5=2"]


class FirstAlone(ScriptedEngine):
    """Answers `quick` samples, and no other ones ever."""

    def __init__(self, end: int, quick: int) -> None:
        super().__init__(lambda request, index: (end,))
        self._quick = quick

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        # The canary of the supervisor is a request of one token.
        if request.max_tokens > 1:
            self._quick -= 1
            self._delay = 0 if self._quick >= 0 else 10 * PATIENCE
        await super().sample(request, stop, deliver)


@asynccontextmanager
async def controller(quick: int) -> AsyncGenerator[httpx.AsyncClient]:
    """A controller over real HTTP, and a caller of it."""
    checkpoint = Checkpoint.open(CHECKPOINT)
    engine = FirstAlone(checkpoint.codec.tokens.end_id, quick)
    app = create_app(Settings(database_url=NO_JOBS), checkpoint, lambda: engine)
    config = uvicorn.Config(app, http=PatientProtocol, log_config=None)
    with listening(config, force_exit=True) as port:
        address = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=address, timeout=PATIENCE) as http:
            await until(http, ready=True)
            yield http


async def until(http: httpx.AsyncClient, **state: object) -> None:
    """Wait for a state of the controller's, as `/ready` tells it."""
    async with asyncio.timeout(PATIENCE):
        while True:
            told = (await http.get("/ready")).json()
            if all(told[name] == value for name, value in state.items()):
                return
            await asyncio.sleep(0.02)


def body(**fields: Any) -> dict[str, Any]:
    return {"prompt": PROMPTS, "strategy": "best_of_n", "breadth": 1} | fields


SEARCH = {"strategy": "best_of_n", "breadth": 1}
MESSAGES = [{"role": "user", "content": PROMPTS[0]}]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("path", "asked", "searches"),
    [
        ("/v1/completions", body(), len(PROMPTS)),
        ("/v1/chat/completions", SEARCH | {"messages": MESSAGES}, 1),
        ("/solve", SEARCH | {"prompt": PROMPTS[0]}, 1),
    ],
)
def test_a_caller_who_leaves_before_the_first_answer_ends_every_search(
    path: str, asked: dict[str, Any], searches: int, stream: bool
) -> None:
    asyncio.run(leave_before_the_answer(path, asked | {"stream": stream}, searches))


def test_a_caller_who_leaves_a_batch_ends_every_search() -> None:
    rows = [{"prompt": prompt} for prompt in PROMPTS]
    asked = {"requests": rows, "defaults": SEARCH}
    asyncio.run(leave_before_the_answer("/solve/batch", asked, len(PROMPTS)))


async def leave_before_the_answer(path: str, asked: dict[str, Any], searches: int) -> None:
    async with controller(quick=0) as http:
        call = asyncio.create_task(http.post(path, json=asked))
        await until(http, searching=searches)
        call.cancel()
        await until(http, searching=0, queued=0, running=0)


def test_a_caller_who_leaves_between_the_answers_ends_the_other_searches() -> None:
    async def leave() -> None:
        async with controller(quick=1) as http:
            call = http.stream("POST", "/v1/completions", json=body(stream=True))
            async with call as answer:
                first = await anext(answer.aiter_lines())
                assert json.loads(first.removeprefix("data: "))["choices"]
                await until(http, searching=len(PROMPTS) - 1)
            await until(http, searching=0, queued=0, running=0)

    asyncio.run(leave())


@pytest.mark.parametrize("fails", [True, False])
def test_what_begins_no_stream_ends_every_search(fails: bool) -> None:
    """A row that fails at once, and a task that is cancelled, as a server that stops does."""
    ended: list[int] = []

    async def solve(place: int) -> SolveResult:
        if fails and not place:
            raise ValueError("refused")
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            ended.append(place)
        raise AssertionError("nobody waits for so long")

    async def begin() -> None:
        run = BatchRun(solve, 3, at_once=3)
        beginning = asyncio.create_task(begun(run))
        await asyncio.sleep(0.05)
        if not fails:
            beginning.cancel()
        await asyncio.wait({beginning})
        assert beginning.cancelled() or isinstance(beginning.exception(), ValueError)
        # At once, and not when somebody collects what was left.
        assert sorted(ended) == ([1, 2] if fails else [0, 1, 2])

    asyncio.run(begin())
