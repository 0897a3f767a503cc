"""The service behind the routes: a supervised engine, a queue before it, a solver over it."""

import asyncio
import time
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import version as distribution_version
from pathlib import Path

from stepback_core.schemas import Model, Readiness, Reload, SolveRequest, SolveResult
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import (
    Engine,
    EngineError,
    EngineUnavailable,
    ReloadFailed,
    ReloadNotOffered,
    Sample,
)
from stepback_server.engine.metered import ChargedEngine
from stepback_server.engine.supervisor import Keeper
from stepback_server.gateway.admission import Admission
from stepback_server.gateway.idempotency import IdempotentAnswers
from stepback_server.gateway.rate_limit import Tenant, TokenMeter
from stepback_server.observability.metrics import Live, Metrics
from stepback_server.observability.search_metrics import Watch, Watched
from stepback_server.observability.tracing import Tracing
from stepback_server.reload import check_successor, folder_under
from stepback_server.request_context import note
from stepback_server.settings import Settings
from stepback_server.solve.solver import Order, Solver
from stepback_server.solve.stream import Feed, LiveSearch

_STOPPING = "the server is shutting down"


class Served:
    """The checkpoint that is served now. Whoever starts an engine, starts it with this one."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint


class Service:
    """What the routes call. `run` it in a task for as long as they do."""

    def __init__(
        self,
        settings: Settings,
        served: Served,
        supervisor: Keeper,
        tracing: Tracing | None = None,
    ) -> None:
        checkpoint = served.checkpoint
        self._served = served
        self._first = checkpoint.folder
        self._solver = Solver(checkpoint, settings)
        self._meter = TokenMeter()
        self._admission = Admission(
            max_searches=settings.max_searches,
            max_queued=settings.max_queued,
            max_seconds=settings.max_queue_seconds,
            meter=self._meter,
            waited=lambda seconds: self.metrics.queued(seconds),
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
        self._reload_root = settings.reload_root
        self._reloading = asyncio.Lock()

    async def run(self) -> None:
        """Keep an engine up until cancelled. Raises what its first start raises."""
        await self._supervisor.run()

    async def solve(
        self, request: SolveRequest, tenant: Tenant, feed: Feed | None = None
    ) -> SolveResult:
        """Raises ApiError, Refused and EngineError."""
        with self._watch.search(request, tenant) as watched:
            result = await self._solve(request, tenant, feed, watched)
            watched.answered(result)
        return result

    async def watch(
        self, request: SolveRequest, tenant: Tenant, idempotency_key: str | None = None
    ) -> LiveSearch:
        """The same in a task of its own, told while it waits and while it runs. One that joins
        another, or comes after it, is told its result alone. Raises what `solve_once` raises within
        the first seconds."""

        async def solve(feed: Feed) -> SolveResult:
            if idempotency_key is None:
                return await self.solve(request, tenant, feed)
            feed.is_joined = self._answers.knows(tenant.name, idempotency_key)
            content, _ = await self.solve_once(request, tenant, idempotency_key, feed)
            result = SolveResult.model_validate_json(content)
            if feed.is_joined:
                feed.begin(*self._solver.retell(request, result))
            return result

        live = LiveSearch(solve)
        await live.begin()
        return live

    async def solve_once(
        self,
        request: SolveRequest,
        tenant: Tenant,
        idempotency_key: str | None,
        feed: Feed | None = None,
    ) -> tuple[bytes, bool]:
        """The result as JSON, and whether it is that of an earlier request with the same key,
        streamed or not.

        Raises what `solve` does, and IdempotencyMismatch."""

        async def work() -> bytes:
            return (await self.solve(request, tenant, feed)).model_dump_json().encode()

        if idempotency_key is None:
            return await work(), False
        same = request.model_copy(update={"stream": False})
        fingerprint = sha256(same.model_dump_json().encode()).digest()
        return await self._answers.once(tenant.name, idempotency_key, fingerprint, work)

    async def _solve(
        self, request: SolveRequest, tenant: Tenant, feed: Feed | None, watched: Watched
    ) -> SolveResult:
        order = self._solver.accept(request)
        # Whoever would wait for nothing is told so now.
        self._supervisor.engine  # noqa: B018
        self._refuse_while_draining()
        async with self._admission.slot(tenant) as seconds_queued:
            self._refuse_while_draining()
            return await self._supervisor.use(
                lambda engine: self._search(
                    order, self._charged(engine, tenant, watched), seconds_queued, feed
                )
            )

    async def _search(
        self, order: Order, engine: Engine, seconds_queued: float, feed: Feed | None
    ) -> SolveResult:
        with self._watch.engine(engine, len(order.prompt_ids)) as watched:
            return await self._solver.solve(order, watched, seconds_queued, feed)

    def _charged(self, engine: Engine, tenant: Tenant, watched: Watched) -> Engine:
        def charge(sample: Sample) -> None:
            watched.sampled(sample)
            self._meter.charge(tenant, sample.generated_tokens)

        return ChargedEngine(engine, charge)

    @property
    def model(self) -> Model:
        """What is served now."""
        checkpoint = self._served.checkpoint
        manifest = checkpoint.manifest
        return Model(id=manifest.name, tasks=manifest.tasks, digest=checkpoint.digest)

    async def reload(self, path: str) -> Reload:
        """Go on with the weights of another folder, once the searches in flight have ended or
        outlasted the grace period; new ones wait meanwhile. Weights that are served already are
        not loaded again.

        Raises PathRefused and CheckpointError, with nothing changed; ReloadNotOffered likewise;
        ReloadFailed, after which engines are started anew with what was served before.
        """
        if self._reload_root is None:
            raise ReloadNotOffered("no STEPBACK_RELOAD_ROOT is set")
        async with self._reloading:
            new = await asyncio.to_thread(self._find, self._reload_root, path)
            self._refuse_while_draining()
            self._supervisor.engine  # noqa: B018
            started, previous = time.monotonic(), self._served.checkpoint.digest
            with self._admission.held():
                cut_short = 0 if new.digest == previous else await self._settle()
                await self._follow(new)
        return Reload(
            model=new.manifest.name,
            digest=new.digest,
            previous=previous,
            cut_short=cut_short,
            seconds=time.monotonic() - started,
        )

    def _find(self, root: Path, path: str) -> Checkpoint:
        new = Checkpoint.open(folder_under(root, path, first=self._first))
        check_successor(self._served.checkpoint, new)
        return new

    async def _settle(self) -> int:
        """Wait until no search is in flight; how many had to be cut short for that."""
        try:
            async with asyncio.timeout(self._grace_seconds):
                await self._admission.idle.wait()
            return 0
        except TimeoutError:
            cut_short = self._solver.cut_short()
            await self._admission.idle.wait()
            return cut_short

    async def _follow(self, new: Checkpoint) -> None:
        previous = self._served.checkpoint
        # First, so that an engine that is lost meanwhile comes back with the new weights.
        self._served.checkpoint = new
        try:
            await self._load(new, previous)
        except BaseException as error:
            self._served.checkpoint = previous
            if not isinstance(error, ReloadNotOffered):
                await self._supervisor.discard(f"new weights could not be loaded ({error})")
            if isinstance(error, EngineError) and not isinstance(error, ReloadNotOffered):
                raise ReloadFailed(str(error)) from error
            raise
        self._solver.follow(new)

    async def _load(self, new: Checkpoint, previous: Checkpoint) -> None:
        if new.digest != previous.digest and not await self._supervisor.reload(new.folder):
            raise ReloadFailed("the engine has the weights that it had before")

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

    async def readiness(self, *, though_full: bool = False) -> Readiness:
        """Whether a search would be taken now; `though_full`: or refused for the queue's sake."""
        full = self._admission.is_full
        reason = "the queue is full" if full and not though_full else None
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
            full=full,
            searching=self._admission.searching,
            queued=self._admission.queued,
            running=running,
            restarts=self._supervisor.restarts,
        )

    @property
    def version(self) -> str:
        return distribution_version("stepback-llm")

    @property
    def vllm_version(self) -> str:
        """Of the engines, once one was up."""
        return self._supervisor.version
