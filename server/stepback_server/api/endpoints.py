"""The endpoints that jobs may ask: a body becomes an answer, with no HTTP between."""

import logging
from typing import Any

from pydantic import ValidationError

from stepback_core.events import ProgressEvent
from stepback_core.schemas import SolveRequest, SolveResult, StopReason
from stepback_server.api.errors import failure_of
from stepback_server.api.paths import SEARCH_PATH
from stepback_server.errors import ApiError, invalid
from stepback_server.gateway.admission import Urgency
from stepback_server.gateway.rate_limit import Tenant
from stepback_server.jobs.job import Endpoint, JobAnswer, NotNow, Report, Tokens
from stepback_server.service import Service
from stepback_server.solve.stream import Feed, LiveSearch

_log = logging.getLogger(__name__)
_TRY_AGAIN = frozenset({"queue_full", "tokens_per_minute", "engine_unavailable"})
# Until the next try, where a refusal does not say.
_SECONDS = 1.0


def endpoints_of(service: Service) -> dict[str, Endpoint]:
    """The endpoints by path. A further one is a line here."""
    return {SEARCH_PATH: SolveEndpoint(service)}


class SolveEndpoint:
    """`POST /solve` for jobs."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(
        self, body: Any, tenant: Tenant, *, is_line: bool, report: Report | None
    ) -> JobAnswer:
        """Search. Raises NotNow."""
        urgency = Urgency.BATCH if is_line else Urgency.BACKGROUND

        async def solve(feed: Feed | None = None) -> SolveResult:
            return await self._service.solve(request, tenant, feed, urgency)

        try:
            request = SolveRequest.model_validate(body).model_copy(
                update={"stream": False, "background": False}
            )
            result = await solve() if report is None else await _reported(solve, report)
        except ValidationError as error:
            return refusal(invalid(error.errors()))
        except Exception as error:  # Every error has its answer, as over HTTP.
            return refused(error)
        if result.stop_reason is StopReason.CANCELLED:
            # The server stops: the search is begun again where it goes on.
            raise NotNow(_SECONDS)
        usage = result.usage
        tokens = Tokens(
            usage.prompt_tokens, usage.cached_tokens, usage.generated_tokens, usage.discarded_tokens
        )
        return JobAnswer(200, result.model_dump_json(), tokens)


async def _reported(solve: Any, report: Report) -> SolveResult:
    """Search, and report the events on the way."""
    live = LiveSearch(solve)
    last: ProgressEvent | None = None
    try:
        async for event in live.events():
            if event is not None:
                report(last := event)
    finally:
        await live.close()
    assert last is not None and last.type == "result"
    return last.result


def refused(error: Exception) -> JobAnswer:
    """The answer to what raised. Raises NotNow where it is worth another try."""
    failure = failure_of(error)
    if failure.code in _TRY_AGAIN:
        raise NotNow(float((failure.headers or {}).get("Retry-After", _SECONDS))) from error
    if failure.code == "internal":
        _log.error("a job ended in an unexpected error", exc_info=error)
    return refusal(failure)


def refusal(failure: ApiError) -> JobAnswer:
    """The answer that HTTP would have had."""
    return JobAnswer(failure.status, failure.body.model_dump_json())
