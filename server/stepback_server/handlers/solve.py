"""`POST /solve` without HTTP, and what every handler does with results and errors."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import ValidationError

from stepback_core.events import ProgressEvent
from stepback_core.schemas import SolveRequest, SolveResult, StopReason
from stepback_server.engine.base import EngineUnavailable
from stepback_server.errors import ApiError, invalid
from stepback_server.gateway.admission import Urgency
from stepback_server.gateway.tenant import Tenant
from stepback_server.handlers.failures import failure_of
from stepback_server.jobs.job import JobAnswer, NotNow, Report, Tokens
from stepback_server.service import Service
from stepback_server.solve.stream import Feed, LiveSearch, SolveLive

_log = logging.getLogger(__name__)
_TRY_AGAIN = frozenset({"queue_full", "tokens_per_minute", "engine_unavailable"})
# Until the next try, where a refusal does not say.
_SECONDS = 1.0


class SolveHandler:
    """Answers the body of one search."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def __call__(
        self, body: Any, tenant: Tenant, *, is_line: bool, report: Report | None
    ) -> JobAnswer:
        """Search. Raises NotNow."""

        async def solve(feed: Feed | None = None) -> SolveResult:
            return await self._service.solve(request, tenant, feed, urgency_of(is_line))

        try:
            request = SolveRequest.model_validate(body).model_copy(
                update={"stream": False, "background": False}
            )
            result = await solve() if report is None else await _reported(solve, report)
        except Exception as error:  # Every error has its answer, as over HTTP.
            return refused(error)
        return answered([result], result.model_dump_json())


def urgency_of(is_line: bool) -> Urgency:
    """The class of a job in admission."""
    return Urgency.BATCH if is_line else Urgency.BACKGROUND


async def _reported(solve: SolveLive, report: Report) -> SolveResult:
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


def answered(results: Sequence[SolveResult], content: str) -> JobAnswer:
    """The answer that some searches add up to. Raises NotNow where one was cut short."""
    if any(result.stop_reason is StopReason.CANCELLED for result in results):
        # The server stops: the search is begun again where it goes on.
        raise NotNow(_SECONDS)
    usages = [result.usage for result in results]
    tokens = Tokens(
        sum(usage.prompt_tokens for usage in usages),
        sum(usage.cached_tokens for usage in usages),
        sum(usage.generated_tokens for usage in usages),
        sum(usage.discarded_tokens for usage in usages),
    )
    return JobAnswer(200, content, tokens)


def refused(error: Exception, answer: Callable[[ApiError], JobAnswer] | None = None) -> JobAnswer:
    """The answer to what raised, spelled by `answer`. Raises NotNow where it is worth another
    try."""
    if (later := try_again(error)) is not None:
        raise later from error
    failure = _failure(error)
    if failure.code == "internal":
        _log.error("a job ended in an unexpected error", exc_info=error)
    return (answer or _refusal)(failure)


def try_again(error: Exception) -> NotNow | None:
    """Return when a search that raised this is worth another try; None if it never is."""
    if isinstance(error, NotNow):
        return error
    failure = _failure(error)
    if failure.code not in _TRY_AGAIN:
        return None
    return NotNow(
        float((failure.headers or {}).get("Retry-After", _SECONDS)),
        is_loss=isinstance(error, EngineUnavailable) and error.begun,
        is_for_key=failure.code == "tokens_per_minute",
    )


def _failure(error: Exception) -> ApiError:
    return invalid(error.errors()) if isinstance(error, ValidationError) else failure_of(error)


def _refusal(failure: ApiError) -> JobAnswer:
    """The answer that HTTP would have had."""
    return JobAnswer.refusal(failure)
