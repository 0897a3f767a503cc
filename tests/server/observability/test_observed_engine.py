"""Whoever an engine works for is charged what it generates."""

import asyncio

from stepback_server.engine.base import Sample, SampleRequest
from tests.server.keeping import charged as charged_engine
from tests.server.search.scripted import ScriptedEngine

REQUEST = SampleRequest(ids=(9,), n=4, max_tokens=10, temperature=1.0, seeds=None, stop_ids=(1,))


def test_what_is_delivered_is_charged() -> None:
    charged: list[Sample] = []
    delivered: list[Sample] = []
    engine = charged_engine(ScriptedEngine(lambda _, i: (5,) * (i + 1)), charged.append)
    asyncio.run(engine.sample(REQUEST, asyncio.Event(), delivered.append))
    assert charged == delivered
    assert [sample.generated_tokens for sample in charged] == [1, 2, 3, 4]
