"""The service that the routes call: searches, reloads, readiness."""

import os
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib.metadata import version as distribution_version
from typing import Literal

from stepback_core.isolation import IsolatedChecker
from stepback_core.schemas import (
    Model,
    Readiness,
    Reload,
    SolveRequest,
    SolveResult,
    Strategy,
)
from stepback_core.tasks import TASKS
from stepback_server.checkpoint import Checkpoint
from stepback_server.concurrency import run_all
from stepback_server.engine.base import EngineUnavailable
from stepback_server.engine.supervisor import EngineProvider
from stepback_server.gateway.admission import Admission, Urgency
from stepback_server.gateway.batch_places import BatchLimits
from stepback_server.gateway.idempotency import IdempotentAnswers
from stepback_server.gateway.rate_limit import RateLimiter
from stepback_server.gateway.shared.controllers import SharedControllers
from stepback_server.gateway.tenant import Tenant
from stepback_server.observability.metrics import Live, Metrics
from stepback_server.observability.telemetry import Telemetry
from stepback_server.observability.tracing import Tracing
from stepback_server.pipeline import STOPPING, SearchPipeline
from stepback_server.reload import Reloader, Served
from stepback_server.request_context import note
from stepback_server.scorers.named import Scorers
from stepback_server.settings import Settings
from stepback_server.solve.solver import Solver
from stepback_server.solve.stream import Feed, LiveSearch


class Service:
    """Searches, reloads and readiness over one kept engine. `run` it in a task meanwhile."""

    def __init__(
        self,
        settings: Settings,
        served: Served,
        keeper: EngineProvider,
        tracing: Tracing | None = None,
    ) -> None:
        self._served = served
        self._keeper = keeper
        self._grace_seconds = settings.grace_seconds
        self._max_searches = settings.max_searches
        # One meter for admission and telemetry: what a search has cost is only known while it runs,
        # so the part that admits and the part that counts must share the bucket.
        meter = RateLimiter()
        # The lambdas read self.metrics when they are called: metrics are made further down, since
        # they look at the admission in turn.
        self._shared = shared = SharedControllers.of(
            settings, meter, lambda seconds: self.metrics.settled(seconds)
        )
        self._admission = Admission(
            max_searches=settings.max_searches,
            max_queued=settings.max_queued,
            max_seconds=settings.max_queue_seconds,
            meter=meter,
            waited=lambda seconds: self.metrics.queued(seconds),
            batch_limits=BatchLimits(
                settings.batch_floor, settings.batch_searches, settings.batch_pause
            ),
            shared=shared and shared.ledger,
        )
        if shared is not None:
            shared.ledger.attach(self._admission)
        self.metrics: Metrics = Metrics(
            Live(
                searching=lambda: self._admission.searching,
                queued=lambda: self._admission.queued,
                engines_up=lambda: keeper.up,
                restarts=lambda: keeper.restarts,
                counts_alone=lambda: self._limits == "fallback",
            )
        )
        # The registry belongs to the process and is filled before any service: a worker cannot be
        # handed the metrics when it is made.
        for task in TASKS.values():
            if isinstance(task, IsolatedChecker):
                task.worker.observe = partial(self.metrics.checked, task.name)
        grammar = served.checkpoint.codec.tokens
        self._answers = IdempotentAnswers(
            max_results=settings.idempotency_results,
            max_bytes=settings.idempotency_mib << 20,
            seconds=settings.idempotency_seconds,
            elsewhere=shared and shared.answers,
        )
        self._scorers = Scorers.read(settings.checkers_file, os.environ, self.metrics.scorer_called)
        self._solver = Solver(served.checkpoint, settings, self._scorers)
        served.shortened = self._solver.shorten
        self._pipeline = SearchPipeline(
            solver=self._solver,
            admission=self._admission,
            engines=keeper,
            telemetry=Telemetry(self.metrics, tracing, grammar, meter.charge),
        )
        self._reloader = Reloader(
            served,
            keeper,
            self._admission,
            self._solver,
            root=settings.reload_root,
            grace_seconds=settings.grace_seconds,
        )

    async def run(self) -> None:
        """Keep an engine up until cancelled. Raises what its first start raises."""
        # Scorers have connections of this loop, so they are closed in it, however the works end.
        works = [self._keeper.run()]
        if self._shared is not None:
            works.append(self._shared.run())
        try:
            await run_all(works)
        finally:
            await self._scorers.close()

    @property
    def _limits(self) -> Literal["own", "shared", "fallback"]:
        """Reach of the limits of keys at this moment."""
        if self._shared is None:
            return "own"
        return "shared" if self._shared.is_shared else "fallback"

    async def check(self, request: SolveRequest) -> None:
        """Refuse what could never be searched for. Raises ApiError."""
        await self._solver.accept(request)
        self._pipeline.refuse_while_draining()

    async def solve(
        self,
        request: SolveRequest,
        tenant: Tenant,
        feed: Feed | None = None,
        urgency: Urgency = Urgency.CALLER,
    ) -> SolveResult:
        """Accept, admit, search, answer. Raises ApiError and EngineError."""
        return await self._pipeline.solve(request, tenant, feed, urgency)

    async def solve_once(
        self,
        request: SolveRequest,
        tenant: Tenant,
        idempotency_key: str | None,
        feed: Feed | None = None,
    ) -> tuple[bytes, bool]:
        """Return the result as JSON, and True where an earlier request with the same key, streamed
        or not, has given it. Raises what `solve` does."""

        if idempotency_key is None:
            result = await self._pipeline.solve(request, tenant, feed)
            return result.model_dump_json().encode(), False
        once = await self._once(request, tenant, idempotency_key, feed)
        return once.content, once.is_joined

    async def _once(
        self, request: SolveRequest, tenant: Tenant, key: str, feed: Feed | None = None
    ) -> "_Once":
        # Kept apart from the bytes: the request that searched need not parse its own answer.
        own: list[SolveResult] = []

        async def work() -> bytes:
            own.append(await self._pipeline.solve(request, tenant, feed))
            return own[0].model_dump_json().encode()

        # A request that is streamed and one that is not are the same request: a client whose stream
        # broke may ask again without.
        same = request.model_copy(update={"stream": False})
        fingerprint = sha256(same.model_dump_json().encode()).digest()
        content, is_joined = await self._answers.once(tenant.name, key, fingerprint, work)
        return _Once(content, is_joined, own[0] if own else None)

    async def result(
        self, request: SolveRequest, tenant: Tenant, idempotency_key: str | None
    ) -> tuple[SolveResult, bool]:
        """Return the result, and True as `solve_once` does. Raises what it raises."""
        if idempotency_key is None:
            return await self.solve(request, tenant), False
        once = await self._once(request, tenant, idempotency_key)
        return once.result, once.is_joined

    async def watch(
        self, request: SolveRequest, tenant: Tenant, idempotency_key: str | None = None
    ) -> LiveSearch:
        """Search in a task of its own that reports while it runs. A request that joins another, or
        comes after it, receives the result alone. Raises what `solve_once` raises within the first
        seconds."""

        async def solve(feed: Feed) -> SolveResult:
            if idempotency_key is None:
                return await self.solve(request, tenant, feed)
            # Asked before the search: the headers go out with the first event, before it is known
            # who searches.
            feed.is_joined = await self._answers.knows(tenant.name, idempotency_key)
            once = await self._once(request, tenant, idempotency_key, feed)
            # It had no search of its own, so the result came from another request's.
            if feed.beginning is None:
                feed.is_joined = True
                feed.begin(*await self._solver.retell(request, once.result))
            return once.result

        # Waits for the beginning, so that a refusal still has its own HTTP status: once a stream
        # has begun, its status is 200.
        live = LiveSearch(solve)
        await live.begin()
        return live

    @property
    def model(self) -> Model:
        """The served model."""
        checkpoint = self._served.checkpoint
        manifest = checkpoint.manifest
        return Model(
            id=manifest.name,
            tasks=manifest.tasks,
            trained_for=manifest.trained_for,
            scorers=self._scorers.names,
            parameters=manifest.training.get("parameters"),
            digest=checkpoint.digest,
            created=checkpoint.written_at,
            max_model_len=checkpoint.context_tokens,
        )

    @property
    def models(self) -> list[Model]:
        """The served model, then the same with each strategy in its name."""
        model = self.model
        # OpenAI's clients can choose a model and nothing else, so the strategy is part of the name.
        named = [model.model_copy(update={"id": f"{model.id}:{each}"}) for each in Strategy]
        return [model, *named]

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint that is served now."""
        return self._served.checkpoint

    def at_once(self, tenant: Tenant) -> int:
        """Tell how many searches of one call may run: as many as its key, or the server, takes."""
        return min(self._max_searches, tenant.max_searches or self._max_searches)

    async def reload(self, path: str) -> Reload:
        """Go on with the weights of another folder: see `Reloader.reload`."""
        self._pipeline.refuse_while_draining()
        return await self._reloader.reload(path)

    async def drain(self) -> None:
        """Take no more searches; those in flight may go on for the grace period, then they return
        the best that they have."""
        await self._pipeline.drain(self._grace_seconds)

    async def readiness(self, *, though_full: bool = False) -> Readiness:
        """Report if a search would be taken now. With `though_full` a full queue does not count."""
        full = self._admission.is_full
        reason = "the queue is full" if full and not though_full else None
        # Ranked from the least to the worst: each later reason replaces the one before it.
        reason = STOPPING if self._pipeline.is_draining else reason
        running = 0
        try:
            engine = self._keeper.engine
            await engine.check()
            running = await engine.running()
        except EngineUnavailable as error:
            # /ready is open to anybody: an address in the error's own text is for the log alone.
            reason = error.public if error.death is None else f"{error.public}: {error.death}"
            note(reason=str(error))
        return Readiness(
            ready=reason is None,
            reason=reason,
            full=full,
            searching=self._admission.searching,
            queued=self._admission.queued,
            running=running,
            restarts=self._keeper.restarts,
            limits=self._limits,
        )

    @property
    def version(self) -> str:
        return distribution_version("stepback-llm")

    @property
    def vllm_version(self) -> str:
        """Version of the engines' vLLM, once one was up."""
        return self._keeper.version


@dataclass(frozen=True, slots=True)
class _Once:
    """The answer of a search with an Idempotency-Key."""

    content: bytes
    is_joined: bool
    own: SolveResult | None
    """The result, where the search was this request's."""

    @property
    def result(self) -> SolveResult:
        return self.own or SolveResult.model_validate_json(self.content)
