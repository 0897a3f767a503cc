"""Tokens are charged as they come, and a caller who hangs up has no search for nothing."""

import asyncio

import pytest

from stepback_server.engine.base import OnSample, Sample, SampleRequest
from stepback_server.engine.charged import ChargedEngine
from tests.server.search.scripted import ScriptedEngine

REQUEST = SampleRequest(ids=(9,), n=4, max_tokens=10, temperature=1.0, seeds=None, stop_ids=(1,))


def engine(charged: list[int], delay: float = 0.0) -> ChargedEngine:
    def charge(sample: Sample) -> None:
        charged.append(sample.generated_tokens)

    return ChargedEngine(ScriptedEngine(lambda _, i: (5,) * (i + 1), delay=delay), charge)


def test_what_is_delivered_is_charged() -> None:
    charged: list[int] = []
    delivered: list[Sample] = []
    asyncio.run(engine(charged).sample(REQUEST, asyncio.Event(), delivered.append))
    assert charged == [len(sample.ids) for sample in delivered] == [1, 2, 3, 4]


def test_a_cancelled_call_is_stopped_and_what_it_had_is_charged_but_not_delivered() -> None:
    charged: list[int] = []
    delivered: list[Sample] = []

    first = asyncio.Event()

    def deliver(sample: Sample) -> None:
        delivered.append(sample)
        first.set()

    async def scenario() -> None:
        metered = engine(charged, delay=0.02)
        others = asyncio.Event()
        call = asyncio.create_task(metered.sample(REQUEST, others, deliver))
        await first.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert not others.is_set()
        assert await metered.running() == 0

    asyncio.run(scenario())
    assert len(delivered) == 1
    assert len(charged) == 4


class DeafEngine(ScriptedEngine):
    """Neither stops nor ends; knows whether it was cancelled."""

    def __init__(self) -> None:
        super().__init__(lambda _, i: ())
        self.was_cancelled = False

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.was_cancelled = True


def test_a_call_that_is_cancelled_twice_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        deaf = DeafEngine()
        charged = ChargedEngine(deaf, lambda _: None)
        call = asyncio.create_task(charged.sample(REQUEST, asyncio.Event(), lambda _: None))
        for _ in range(2):
            await asyncio.sleep(0.01)
            call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert deaf.was_cancelled
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())


def test_the_searchs_own_stop_is_passed_on() -> None:
    delivered: list[Sample] = []

    async def scenario() -> None:
        stop = asyncio.Event()
        call = asyncio.create_task(engine([], 0.01).sample(REQUEST, stop, delivered.append))
        await asyncio.sleep(0)
        stop.set()
        await call

    asyncio.run(scenario())
    assert {sample.finish for sample in delivered} == {"aborted"}
