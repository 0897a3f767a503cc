"""An engine seen through another, which passes every call on: what changes one call extends it."""

import asyncio

from stepback_server.engine.base import Engine, OnSample, SampleRequest


class EngineWrapper:
    """Passes every call on."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        await self._engine.sample(request, stop, deliver)

    async def running(self) -> int:
        return await self._engine.running()

    async def check(self) -> None:
        await self._engine.check()
