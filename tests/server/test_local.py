"""A solver without HTTP, over engines that die: of one row, for good, or while the server stops."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from stepback_core.schemas import SolveRequest
from stepback_server.api.openai.job_handlers import CompletionsHandler
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import EngineUnavailable, SampleRequest
from stepback_server.engine.death import Death
from stepback_server.engine.pool import EnginePool
from stepback_server.gateway.tenant import ANYONE
from stepback_server.handlers.solve import SolveHandler
from stepback_server.jobs.job import NotNow
from stepback_server.jobs.tries import Tries
from stepback_server.local import LocalSolver, opened
from stepback_server.settings import Settings
from tests.conftest import CHECKPOINT
from tests.server.search.scripted import ScriptedEngine

pytestmark = pytest.mark.timeout(300)
POISON = "countdown:7,7=49"
CODEC = Checkpoint.open(CHECKPOINT).codec


class Mortal(ScriptedEngine):
    """Dies of one prompt, and all that is in flight with it."""

    def __init__(self) -> None:
        super().__init__(self._ids, delay=0.05)
        self._is_dead = False

    def _ids(self, request: SampleRequest, index: int) -> tuple[int, ...]:
        if POISON in CODEC.tokenizer.decode(list(request.ids)):
            self._is_dead = True
        if self._is_dead:
            raise EngineUnavailable("the engine has died")
        return (CODEC.tokens.end_id,)

    async def check(self) -> None:
        if self._is_dead:
            raise EngineUnavailable("the engine has died")


def body(prompt: str) -> dict[str, Any]:
    return {"prompt": prompt, "strategy": "greedy"}


def test_a_row_that_kills_engines_is_a_row_and_those_beside_it_are_answered() -> None:
    async def scenario() -> None:
        async with opened(CHECKPOINT, start_engine=Mortal) as solver:
            prompts = [POISON, *(f"countdown:3,{n}=15" for n in range(5, 12))]
            (status, error), *others = await asyncio.gather(
                *(solver.answer(body(prompt)) for prompt in prompts)
            )
            assert (status, error["error"]["code"]) == (500, "engine_lost")
            assert "lost 3 times" in error["error"]["message"]
            assert {status for status, _ in others} == {200}
            assert solver.service.metrics.render().count(b"stepback_engine_restarts_total 3.0") == 1

    asyncio.run(scenario())


def test_a_prompt_that_kills_engines_ends_its_line_of_several() -> None:
    async def scenario() -> None:
        async with opened(CHECKPOINT, start_engine=Mortal) as solver:
            handler = CompletionsHandler(solver.service, Settings(), Tries())
            line = {"prompt": [POISON, "countdown:3,5=15"], "max_tokens": 8}
            answer = await handler(line, ANYONE, is_line=True, report=None)
            assert answer.status == 500 and "lost 3 times" in answer.content

    asyncio.run(scenario())


def starts(*outcomes: ScriptedEngine | Exception) -> Callable[[], ScriptedEngine]:
    left = iter(outcomes)

    def start() -> ScriptedEngine:
        outcome = next(left)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return start


DEAD = EngineUnavailable.of_death(Death("ended with status 1", ["no space left"]))


def test_an_engine_that_is_lost_for_good_is_an_error_and_no_wait() -> None:
    async def scenario() -> None:
        start = starts(Mortal(), DEAD, DEAD, DEAD)
        async with opened(CHECKPOINT, start_engine=start) as solver:
            with pytest.raises(ConnectionError, match=r"none will come.*status 1"):
                await solver.answer(body(POISON))

    asyncio.run(scenario())


def test_an_engine_that_never_starts_is_the_same_error() -> None:
    async def scenario() -> None:
        with pytest.raises(ConnectionError, match=r"none will come.*status 1"):
            async with opened(CHECKPOINT, start_engine=starts(DEAD)):
                pass

    asyncio.run(scenario())


def test_a_wait_for_an_engine_or_a_stop_is_no_loss() -> None:
    async def refusal(solver: LocalSolver) -> NotNow:
        with pytest.raises(NotNow) as later:
            await SolveHandler(solver.service)(body(POISON), ANYONE, is_line=True, report=None)
        return later.value

    async def scenario() -> None:
        async with opened(CHECKPOINT, start_engine=Mortal) as solver:
            assert (await refusal(solver)).is_loss
            while b"stepback_engines_up 1.0" in solver.service.metrics.render():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert not (await refusal(solver)).is_loss
            await solver.service.drain()
            with pytest.raises(EngineUnavailable) as stopping:
                await solver.service.solve(SolveRequest(**body(POISON)), ANYONE)
            assert not stopping.value.begun
        with pytest.raises(EngineUnavailable) as none:
            EnginePool({}).ensure_up()
        assert not none.value.begun

    asyncio.run(scenario())
