"""A solver in this process: settings, checkpoint, engine and search, without HTTP.

async with opened(Path("models/multitask-10m")) as solver:
    result = await solver.solve(SolveRequest(...))
"""

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from stepback_core.schemas import SolveRequest, SolveResult
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.context import with_context
from stepback_server.engine.supervisor import StartEngine
from stepback_server.engine.vllm_environment import prepare_environment_for
from stepback_server.engine_provider import provide_engines
from stepback_server.gateway.tenant import ANYONE
from stepback_server.handlers.solve import SolveHandler
from stepback_server.jobs.job import NotNow
from stepback_server.observability.tracing import leave_out_missing_propagators
from stepback_server.plugins import plugins_of
from stepback_server.reload import Served
from stepback_server.service import Service
from stepback_server.settings import Settings, flag_of

_POLL_SECONDS = 0.1


class LocalSolver:
    """Searches in this process. Make it with `opened`."""

    def __init__(
        self, settings: Settings, checkpoint: Checkpoint, start_engine: StartEngine | None = None
    ) -> None:
        served = Served(checkpoint)
        self.service = Service(settings, served, provide_engines(settings, served, start_engine))
        self._handler = SolveHandler(self.service)

    async def solve(self, request: SolveRequest) -> SolveResult:
        """Search. Raises ApiError and EngineError."""
        return await self.service.solve(request, ANYONE)

    async def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Answer a body as HTTP does: a status, and the result or the error body. Waits where the
        engine is overloaded or lost."""
        while True:
            try:
                answer = await self._handler(body, ANYONE, is_line=True, report=None)
                return answer.status, json.loads(answer.content)
            except NotNow as later:
                await asyncio.sleep(later.seconds)


@asynccontextmanager
async def opened(
    model: Path, *, in_flight: int = 32, start_engine: StartEngine | None = None
) -> AsyncGenerator[LocalSolver]:
    """Open a checkpoint and start its engine, with the settings of the environment. `in_flight`:
    searches at once. Raises InvalidInput, and what a start raises."""
    flags = {"model": model, "max_searches": in_flight, "batch_searches": in_flight}
    arguments = [part for name, value in flags.items() for part in (flag_of(name), str(value))]
    settings = Settings.read(os.environ, [part for part in arguments if part], command="batch")
    prepare_environment_for(settings)
    leave_out_missing_propagators(os.environ)
    with plugins_of(settings):
        checkpoint = await asyncio.to_thread(Checkpoint.open, model)
        served = with_context(checkpoint, settings)
        async with _running(LocalSolver(settings, served, start_engine)) as solver:
            yield solver


@asynccontextmanager
async def _running(solver: LocalSolver) -> AsyncGenerator[LocalSolver]:
    running = asyncio.create_task(solver.service.run())
    try:
        while not (await solver.service.readiness()).ready:
            if running.done():
                running.result()
            await asyncio.sleep(_POLL_SECONDS)
        yield solver
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
