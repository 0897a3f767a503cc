"""Searches for callers: at most one for one Idempotency-Key, as bytes, as a result, or live."""

from dataclasses import dataclass
from hashlib import sha256

from stepback_core.schemas import SolveRequest, SolveResult
from stepback_server.gateway.idempotency import IdempotentAnswers
from stepback_server.gateway.tenant import Tenant
from stepback_server.pipeline import SearchPipeline
from stepback_server.solve.solver import Solver
from stepback_server.solve.stream import Feed, LiveSearch


class IdempotentSearches:
    """Searches through the pipeline. A repeated request joins the first, or gets its result."""

    def __init__(
        self, pipeline: SearchPipeline, solver: Solver, answers: IdempotentAnswers
    ) -> None:
        self._pipeline = pipeline
        self._solver = solver
        self._answers = answers

    async def content(
        self,
        request: SolveRequest,
        tenant: Tenant,
        idempotency_key: str | None,
    ) -> tuple[bytes, bool]:
        """Return the result as JSON, and True where an earlier request with the same key, streamed
        or not, has given it. Raises ApiError and EngineError."""
        if idempotency_key is None:
            result = await self._pipeline.solve(request, tenant)
            return result.model_dump_json().encode(), False
        once = await self._once(request, tenant, idempotency_key)
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
        """Return the result, and True as `content` does. Raises what it raises."""
        if idempotency_key is None:
            return await self._pipeline.solve(request, tenant), False
        once = await self._once(request, tenant, idempotency_key)
        return once.result, once.is_joined

    async def watch(
        self, request: SolveRequest, tenant: Tenant, idempotency_key: str | None = None
    ) -> LiveSearch:
        """Search in a task of its own that reports while it runs. A request that joins another, or
        comes after it, receives the result alone. Raises what `content` raises within the first
        seconds."""

        async def solve(feed: Feed) -> SolveResult:
            if idempotency_key is None:
                return await self._pipeline.solve(request, tenant, feed)
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
