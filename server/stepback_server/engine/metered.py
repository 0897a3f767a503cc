"""An engine whose samples are charged to somebody as they come."""

import asyncio

from stepback_server.engine.base import Engine, OnSample, Sample, SampleRequest
from stepback_server.engine.wrapper import PassingEngine


class ChargedEngine(PassingEngine):
    """Passes everything on to an engine, and charges every sample that it generates."""

    def __init__(self, engine: Engine, charge: OnSample) -> None:
        super().__init__(engine)
        self._charge = charge

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        def count(sample: Sample) -> None:
            self._charge(sample)
            deliver(sample)

        await super().sample(request, stop, count)
