"""The service behind the routes: a supervised engine, a queue before it, a solver over it."""

import asyncio
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import version as distribution_version

from stepback_core.wire import Model, Readiness, SolveRequest, SolveResult
from stepback_server.admission import Admission
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import Engine, EngineUnavailable
from stepback_server.engine.charged import ChargedEngine
from stepback_server.engine.supervisor import Keeper
from stepback_server.idempotency import IdempotentAnswers
from stepback_server.metrics import Live, Metrics
from stepback_server.observation.request import note
from stepback_server.observation.tracing import Tracing
from stepback_server.observation.watch import Watch
from stepback_server.settings import Settings
from stepback_server.solving import Order, Solver
from stepback_server.streaming import Feed, LiveSearch
from stepback_server.tenants import Tenant, TokenMeter

_STOPPING = "the server is shutting down"


class Service:
    """What the routes call. `run` it in a task for as long as they do."""

    def __init__(
        self,
        settings: Settings,
        checkpoint: Checkpoint,
        supervisor: Keeper,
        tracing: Tracing | None = None,
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
        self._supervisor = supervisor
        self.metrics = Metrics(
            Live(
                searching=lambda: self._admission.searching,
                queued=lambda: self._admission.queued,
                engines_up=lambda: self._supervisor.up,
                restarts=lambda: self._supervisor.restarts,
            )
        )
        self._watch = Watch(self.metrics, tracing, checkpoint.codec.tokens)
        self._grace_seconds = settings.grace_seconds
        self._draining = False
        self.model = Model(id=checkpoint.manifest.name, tasks=checkpoint.manifest.tasks)

    async def run(self) -> None:
        """Keep an engine up until cancelled. Raises what its first start raises."""
        await self._supervisor.run()

    async def solve(
        self, request: SolveRequest, tenant: Tenant, feed: Feed | None = None
    ) -> SolveResult:
        """Raises ApiError, Refused and EngineError."""
        with self._watch.search(request, tenant) as watched:
            result = await self._solve(request, tenant, feed)
            watched.answered(result)
        return result

    async def watch(self, request: SolveRequest, tenant: Tenant) -> LiveSearch:
        """The same in a task of its own, told while it waits and while it runs. Raises what `solve`
        raises within the first seconds."""
        live = LiveSearch(lambda feed: self.solve(request, tenant, feed))
        await live.begin()
        return live

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

    async def _solve(self, request: SolveRequest, tenant: Tenant, feed: Feed | None) -> SolveResult:
        order = self._solver.accept(request)
        # Whoever would wait for nothing is told so now.
        self._supervisor.engine  # noqa: B018
        self._refuse_while_draining()
        async with self._admission.slot(tenant) as seconds_queued:
            self._refuse_while_draining()
            return await self._supervisor.use(
                lambda engine: self._search(
                    order, self._charged(engine, tenant), seconds_queued, feed
                )
            )

    async def _search(
        self, order: Order, engine: Engine, seconds_queued: float, feed: Feed | None
    ) -> SolveResult:
        with self._watch.engine(engine, len(order.prompt_ids)) as watched:
            return await self._solver.solve(order, watched, seconds_queued, feed)

    def _charged(self, engine: Engine, tenant: Tenant) -> Engine:
        if tenant.tokens_per_minute is None:
            return engine
        return ChargedEngine(engine, lambda tokens: self._meter.charge(tenant, tokens))

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
            raise EngineUnavailable(_STOPPING, public=_STOPPING)

    async def readiness(self) -> Readiness:
        reason = "the queue is full" if self._admission.is_full else None
        reason = _STOPPING if self._draining else reason
        running = 0
        try:
            engine = self._supervisor.engine
            await engine.check()
            running = await engine.running()
        except EngineUnavailable as error:
            reason = error.public
            note(reason=str(error))
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
        """Of the engines, once one was up."""
        return self._supervisor.version
