"""An engine that counts the prompt tokens of the benchmarks' searches."""

import asyncio

from stepback_server.engine.base import Engine, OnSample, SampleRequest
from stepback_server.engine.wrapper import EngineWrapper


class CountingEngine(EngineWrapper):
    """Counts the prompt tokens that it is asked to know, once for each sample."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.prompted = 0

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        self.prompted += request.n * len(request.ids)
        await super().sample(request, stop, deliver)
