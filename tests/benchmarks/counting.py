"""An engine that counts the prompt tokens of the benchmarks' searches."""

import asyncio

from stepback_server.engine.base import Engine, OnSample, SampleRequest


class CountingEngine:
    """Counts the prompt tokens that it is asked to know, once for each sample."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.prompted = 0

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        self.prompted += request.n * len(request.ids)
        await self._engine.sample(request, stop, deliver)
