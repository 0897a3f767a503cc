"""Supervision with a hand-made engine: what is noticed, who is told, what comes after."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from stepback_server.engine.base import (
    Engine,
    EngineUnavailable,
    OnSample,
    OwnedEngine,
    SampleRequest,
)
from stepback_server.engine.supervisor import HealthCheckConfig, Supervisor
from tests.server.keeping import use
from tests.server.search.scripted import END, ScriptedEngine

CANARY = SampleRequest(ids=(1,), n=1, max_tokens=1, temperature=0.0, seeds=None, stop_ids=())
QUICK = HealthCheckConfig(
    between_checks=0.01,
    between_canaries=0.02,
    canary_deadline=0.1,
    first_backoff=0.01,
    longest_backoff=0.02,
)


class FragileEngine(ScriptedEngine):
    """Can die, and can hang."""

    def __init__(self) -> None:
        super().__init__(lambda request, index: (END,))
        self.dead = self.hangs = False
        self.closed: list[bool] = []

    async def check(self) -> None:
        if self.dead:
            raise EngineUnavailable("the engine has died")

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        await super().sample(request, stop, deliver)

    async def close(self, *, kill: bool) -> None:
        self.closed.append(kill)


class Engines:
    """Starts engines, and fails to where told."""

    def __init__(self, failures: int = 0) -> None:
        self.started: list[FragileEngine] = []
        self.failures = failures

    def __call__(self) -> OwnedEngine:
        if self.started and self.failures:
            self.failures -= 1
            raise RuntimeError("no memory")
        self.started.append(FragileEngine())
        return self.started[-1]


def supervised(
    engines: Engines, scenario: Callable[[Supervisor], Coroutine[Any, Any, None]]
) -> None:
    async def run() -> None:
        supervisor = Supervisor(engines, CANARY, QUICK)
        running = asyncio.create_task(supervisor.run())
        async with asyncio.timeout(120):
            await until(lambda: len(engines.started) == 1)
            await scenario(supervisor)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(run())
    assert engines.started[-1].closed == [False]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - any condition, not only an event
        await asyncio.sleep(0.005)


async def forever(engine: Engine) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("fault", ["dead", "hangs"])
def test_a_lost_engine_is_replaced_and_its_users_are_told(fault: str) -> None:
    engines = Engines(failures=2)

    async def scenario(supervisor: Supervisor) -> None:
        await until(lambda: bool(supervisor_has_engine(supervisor)))
        using = asyncio.create_task(use(supervisor, forever))
        await asyncio.sleep(0)
        setattr(engines.started[0], fault, True)
        with pytest.raises(EngineUnavailable, match="is being brought back"):
            await using
        await until(lambda: len(engines.started) == 2 and supervisor_has_engine(supervisor))
        assert supervisor.restarts == 1
        assert engines.started[0].closed == [True]

    supervised(engines, scenario)


def supervisor_has_engine(supervisor: Supervisor) -> bool:
    try:
        return bool(supervisor.engine)
    except EngineUnavailable:
        return False


def test_a_busy_engine_that_makes_progress_is_left_alone() -> None:
    engines = Engines()

    async def scenario(supervisor: Supervisor) -> None:
        await until(lambda: supervisor_has_engine(supervisor))
        engine = engines.started[0]
        engine.hangs = True
        for _ in range(30):
            await asyncio.sleep(0.02)
            engine.steps += 1
        engine.hangs = False
        assert supervisor.restarts == 0

    supervised(engines, scenario)


def test_an_engine_that_starts_and_samples_nothing_is_not_up() -> None:
    engine = FragileEngine()
    engine.hangs = True

    async def scenario() -> None:
        supervisor = Supervisor(lambda: engine, CANARY, QUICK, name="http://a")
        running = asyncio.create_task(supervisor.run())
        await until(lambda: len(engine.closed) == 2)
        assert supervisor.up == 0 and supervisor.reason == "http://a hangs"
        engine.hangs = False
        await until(lambda: supervisor.up == 1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())


def test_callers_are_told_what_is_left_of_a_start_by_the_last_one() -> None:
    def start() -> OwnedEngine:
        time.sleep(0.2)
        return FragileEngine()

    def told(supervisor: Supervisor) -> int:
        with pytest.raises(EngineUnavailable) as refusal:
            _ = supervisor.engine
        return refusal.value.retry_after

    async def scenario() -> None:
        supervisor = Supervisor(start, CANARY, replace(QUICK, expected_start=20.0))
        running = asyncio.create_task(supervisor.run())
        await asyncio.sleep(0.01)
        assert told(supervisor) == 20
        await until(lambda: supervisor.up == 1)
        await supervisor.discard("it is tried")
        assert told(supervisor) == 2, "a start takes 0.2 s, and this is the least"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())


def test_a_first_start_that_fails_is_raised() -> None:
    def start() -> OwnedEngine:
        raise RuntimeError("no such model")

    with pytest.raises(RuntimeError, match="no such model"):
        asyncio.run(Supervisor(start, CANARY, QUICK).run())


def test_a_cancelled_start_leaves_no_engine_behind() -> None:
    engines = Engines()

    async def scenario() -> None:
        running = asyncio.create_task(Supervisor(engines, CANARY, QUICK).run())
        await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())
    assert all(engine.closed == [False] for engine in engines.started)
