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
from stepback_server.errors import ApiError
from stepback_server.gateway.tenant import ANYONE
from stepback_server.handlers.solve import SolveHandler
from stepback_server.jobs.job import JobAnswer, NotNow
from stepback_server.jobs.tries import Tries
from stepback_server.observability.tracing import Tracing, leave_out_missing_propagators
from stepback_server.plugins import plugins_of
from stepback_server.reload import Served
from stepback_server.service import Service
from stepback_server.setting_values import in_our_words
from stepback_server.settings import Settings, flag_of

_POLL_SECONDS = 0.1


class LocalSolver:
    """Searches in this process. Make it with `opened`."""

    def __init__(
        self,
        settings: Settings,
        checkpoint: Checkpoint,
        start_engine: StartEngine | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        served = Served(checkpoint)
        engines = provide_engines(settings, served, start_engine)
        self.service = Service(settings, served, engines, tracing)
        self._handler = SolveHandler(self.service)
        self._tries = Tries()
        self._keeping: asyncio.Task[None] | None = None

    async def solve(self, request: SolveRequest) -> SolveResult:
        """Search. Raises ApiError and EngineError."""
        return await self.service.solve(request, ANYONE)

    async def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Answer a body as HTTP does: a status, and the result or the error body. Waits where the
        engine is overloaded or lost. Raises ConnectionError where it is lost for good."""
        try:
            answer = await self._tries.until_answered(lambda: self._ask(body))
        except ApiError as error:
            return error.status, error.body.model_dump(mode="json")
        return answer.status, json.loads(answer.content)

    async def _ask(self, body: dict[str, Any]) -> JobAnswer:
        try:
            return await self._handler(body, ANYONE, is_line=True, report=None)
        except NotNow:
            self._raise_if_ended()
            raise

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Keep an engine up, from when it is ready. Raises ConnectionError where none starts."""
        self._keeping = keeping = asyncio.create_task(self.service.run())
        try:
            while not (await self.service.readiness()).ready:
                self._raise_if_ended()
                await asyncio.sleep(_POLL_SECONDS)
            yield
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    def _raise_if_ended(self) -> None:
        # Who waits for an engine that no one starts any more would wait for ever.
        if self._keeping is not None and self._keeping.done():
            cause = None if self._keeping.cancelled() else self._keeping.exception()
            why = in_our_words(cause) if cause else "it was stopped"
            raise ConnectionError(f"there is no engine, and none will come: {why}") from cause


@asynccontextmanager
async def opened(
    model: Path, *, in_flight: int = 32, start_engine: StartEngine | None = None
) -> AsyncGenerator[LocalSolver]:
    """Open a checkpoint and start its engine, with the settings of the environment. `in_flight`:
    searches at once. Raises InvalidInput, and ConnectionError where no engine starts."""
    flags = {"model": model, "max_searches": in_flight, "batch_searches": in_flight}
    arguments = [part for name, value in flags.items() for part in (flag_of(name), str(value))]
    settings = Settings.read(os.environ, [part for part in arguments if part], command="batch")
    prepare_environment_for(settings)
    leave_out_missing_propagators(os.environ)
    with plugins_of(settings):
        checkpoint = await asyncio.to_thread(Checkpoint.open, model)
        served = with_context(checkpoint, settings)
        solver = LocalSolver(settings, served, start_engine)
        async with solver.running():
            yield solver
