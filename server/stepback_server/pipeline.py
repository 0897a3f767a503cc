"""The path of one search: accept, admit, search, answer."""

import asyncio
from contextlib import suppress

from stepback_core.schemas import SolveRequest, SolveResult
from stepback_server.engine.base import EngineUnavailable
from stepback_server.engine.supervisor import EngineProvider
from stepback_server.gateway.admission import Admission, Urgency
from stepback_server.gateway.tenant import Tenant
from stepback_server.observability.telemetry import Telemetry
from stepback_server.solve.solver import Solver
from stepback_server.solve.stream import Feed

STOPPING = "the server is shutting down"


class SearchPipeline:
    """Takes searches until it is drained."""

    def __init__(
        self,
        *,
        solver: Solver,
        admission: Admission,
        engines: EngineProvider,
        telemetry: Telemetry,
    ) -> None:
        self._solver = solver
        self._admission = admission
        self._engines = engines
        self._telemetry = telemetry
        self.is_draining = False

    async def solve(
        self,
        request: SolveRequest,
        tenant: Tenant,
        feed: Feed | None = None,
        urgency: Urgency = Urgency.CALLER,
    ) -> SolveResult:
        """Accept, admit, search, answer. Raises ApiError and EngineError."""
        with self._telemetry.search(request, tenant) as seen:
            # Refusals of the request itself come first: a caller with a mistake should not wait in
            # a queue to learn of it.
            order = await self._solver.accept(request)
            # Before the queue, where the request would wait in vain.
            self._engines.ensure_up()
            self.refuse_while_draining()
            async with self._admission.slot(tenant, urgency) as seconds_queued:
                self.refuse_while_draining()
                # Lent only now: an engine that was chosen before the queue could be lost by the
                # time it is used.
                async with self._engines.lend() as lent:
                    with seen.engine(lent, len(order.prompt_ids)) as engine:
                        result = await self._solver.solve(order, engine, seconds_queued, feed)
            seen.answered(result)
        return result

    async def check(self, request: SolveRequest) -> None:
        """Refuse what could never be searched for. Raises ApiError and EngineUnavailable."""
        await self._solver.accept(request)
        self.refuse_while_draining()

    def refuse_while_draining(self) -> None:
        """Raise EngineUnavailable once the server stops."""
        if self.is_draining:
            raise EngineUnavailable(STOPPING, public=STOPPING, begun=False)

    async def drain(self, grace_seconds: float) -> None:
        """Take no more searches; those in flight may go on for the grace period, then they return
        the best that they have."""
        self.is_draining = True
        # No search is dropped when the time is over: cancel_all lets each return the best that it
        # has.
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self._admission.idle.wait()
        self._solver.cancel_all()
