"""`POST /solve/batch`: many problems in one call, answered line by line in order of ending."""

import logging
from collections.abc import AsyncGenerator

from fastapi import APIRouter, Depends, Request, Response
from pydantic import ValidationError

from stepback_core.inlining import inlined
from stepback_core.schemas import SolveRequest, SolveResult
from stepback_core.schemas.batch import BatchRow, BatchSolveRequest
from stepback_server.api.authentication import CurrentTenant
from stepback_server.api.body import StrictRoute, sent_as_json
from stepback_server.api.paths import BATCH_PATH
from stepback_server.api.routes import SEARCH_ERRORS, IdempotencyKey, TheService
from stepback_server.api.sse import WorkStream
from stepback_server.api.state import state_of
from stepback_server.errors import ApiError, invalid
from stepback_server.handlers.failures import failure_of
from stepback_server.solve.batch import BatchRun, Ended

_log = logging.getLogger(__name__)
router = APIRouter(route_class=StrictRoute, tags=["search"])
_NDJSON = "application/x-ndjson"
# White space before a JSON text is part of it: readers of lines need no rule for it.
_KEEPALIVE = b" "


class NdjsonResponse(Response):
    """Lines of JSON, for the schema."""

    media_type = _NDJSON


@router.post(
    BATCH_PATH,
    responses={
        **SEARCH_ERRORS,
        200: {
            "description": "One line of JSON a request, in order of ending.",
            "content": {_NDJSON: {"schema": inlined(BatchRow.model_json_schema())}},
        },
    },
    response_class=NdjsonResponse,
    dependencies=[Depends(sent_as_json)],
)
async def solve_batch(
    body: BatchSolveRequest,
    request: Request,
    service: TheService,
    tenant: CurrentTenant,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Search for the answers to many problems. Few searches run at once, as many as the key may
    have in flight; each line of the answer tells how one ended."""
    most = state_of(request.app).settings.max_batch
    if len(body.requests) > most:
        raise ApiError(
            "out_of_range", f"requests: this server allows at most {most}", param="requests"
        )

    async def solve(index: int) -> SolveResult:
        # A key of its own for each row: a batch that is sent again finds the rows that had ended.
        key = None if idempotency_key is None else f"{idempotency_key}/{index}"
        result, _ = await service.searches.result(_request(body.row(index)), tenant, key)
        return result

    run = BatchRun(solve, len(body.requests), at_once=service.at_once(tenant))
    return WorkStream(run, _lines(run), media_type=_NDJSON)


def _request(row: dict[str, object]) -> SolveRequest:
    if row.get("stream"):
        raise ApiError("invalid_value", "stream: a batch is a stream already", param="stream")
    try:
        return SolveRequest.model_validate(row)
    except ValidationError as error:
        raise invalid(error.errors()) from error


async def _lines(run: BatchRun) -> AsyncGenerator[bytes]:
    async for ended in run.rows():
        if ended is None:
            yield _KEEPALIVE
        else:
            yield _row(ended).model_dump_json().encode() + b"\n"


def _row(ended: Ended) -> BatchRow:
    index, result = ended
    if isinstance(result, SolveResult):
        return BatchRow(index=index, status=200, result=result)
    failure = failure_of(result)
    if failure.code == "internal":
        _log.error("a row of a batch ended in an unexpected error", exc_info=result)
    return BatchRow(
        index=index,
        status=failure.status,
        error=failure.body.error,
        retry_after=failure.retry_after,
    )
