"""The service that the routes call: searches, reloads, readiness."""

import os
from functools import partial
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
from stepback_server.idempotent_search import IdempotentSearches
from stepback_server.jobs.lazy import Jobs
from stepback_server.observability.metrics import Live, Metrics
from stepback_server.observability.telemetry import Telemetry
from stepback_server.observability.tracing import Tracing
from stepback_server.pipeline import STOPPING, SearchPipeline
from stepback_server.reload import Reloader, Served
from stepback_server.request_context import note
from stepback_server.scorers.named import Scorers
from stepback_server.settings import Settings
from stepback_server.solve.solver import Solver
from stepback_server.solve.stream import Feed


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
        self._jobs: Jobs | None = None
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
                jobs_waiting=lambda: self._jobs.waiting if self._jobs else 0,
                jobs_running=lambda: self._jobs.running if self._jobs else 0,
            )
        )
        # The registry belongs to the process and is filled before any service: a worker cannot be
        # handed the metrics when it is made.
        for task in TASKS.values():
            if isinstance(task, IsolatedChecker):
                task.worker.observe = partial(self.metrics.checked, task.name)
        grammar = served.checkpoint.codec.tokens
        self._scorers = Scorers.read(settings.checkers_file, os.environ, self.metrics.scorer_called)
        solver = Solver(served.checkpoint, settings, self._scorers)
        served.shortened = solver.shorten
        self._pipeline = SearchPipeline(
            solver=solver,
            admission=self._admission,
            engines=keeper,
            telemetry=Telemetry(self.metrics, tracing, grammar, meter.charge),
        )
        answers = IdempotentAnswers(
            max_results=settings.idempotency_results,
            max_bytes=settings.idempotency_mib << 20,
            seconds=settings.idempotency_seconds,
            elsewhere=shared and shared.answers,
        )
        self.searches: IdempotentSearches = IdempotentSearches(self._pipeline, solver, answers)
        self._reloader = Reloader(
            served,
            keeper,
            self._admission,
            solver,
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

    def show(self, jobs: Jobs) -> None:
        """Have these jobs, which are answered here, in the metrics."""
        self._jobs = jobs

    async def check(self, request: SolveRequest) -> None:
        """Refuse what could never be searched for. Raises ApiError."""
        await self._pipeline.check(request)

    async def solve(
        self,
        request: SolveRequest,
        tenant: Tenant,
        feed: Feed | None = None,
        urgency: Urgency = Urgency.CALLER,
    ) -> SolveResult:
        """Accept, admit, search, answer. Raises ApiError and EngineError."""
        return await self._pipeline.solve(request, tenant, feed, urgency)

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
            await self._keeper.check()
            running = await self._keeper.running()
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
