"""The routes of jobs: background searches, files, batches."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, File, Form, Header, Query, Request, UploadFile
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event

from stepback_core.schemas.jobs import (
    Batch,
    BatchList,
    BatchRequest,
    FileDeleted,
    FileList,
    FileObject,
    Order,
    SearchJob,
    SearchJobList,
)
from stepback_server.api.authentication import CurrentTenant
from stepback_server.api.body import StrictRoute, sent_as_json
from stepback_server.api.error_answers import OF_ANY_BODY, described
from stepback_server.api.openai_errors import status_of
from stepback_server.api.state import state_of
from stepback_server.errors import ApiError
from stepback_server.storage.errors import StorageUnavailable

if TYPE_CHECKING:
    from stepback_server.jobs.opened import OpenedJobs

_log = logging.getLogger(__name__)
router = APIRouter(route_class=StrictRoute, tags=["jobs"])

_NO_JOBS = {"jobs_not_offered", "storage_unavailable"}
_FIND = {"missing_key", "unknown_key", "unknown_id", "internal"} | _NO_JOBS
_LIST = _FIND | {"wrong_type", "out_of_range", "unknown_value"}
_UPLOAD = _FIND | {"missing_field", "unknown_value", "out_of_range", "body_too_large"}
_POLL_SECONDS = 0.25
_SILENCE_SECONDS = 10.0
_CHUNK = 1 << 20
_SECONDS = re.compile(r"[0-9]{1,9}")
_MOST = 999_999_999
"""The largest number of an event."""


async def _opened(request: Request) -> "OpenedJobs":
    return await state_of(request.app).jobs.opened()


# Opened by the first request: a server that has no jobs opens no database.
TheJobs = Annotated["OpenedJobs", Depends(_opened)]
Limit = Annotated[int, Query(ge=1, le=100, description="Entries of one page.")]
After = Annotated[
    str | None, Query(max_length=128, description="`last_id` of the page before this one.")
]
"""The rest of the list begins after it."""
Ordered = Annotated[Order, Query(alias="order", description="By time of creation.")]
LastEvent = Annotated[
    int | None,
    Query(ge=0, le=_MOST, alias="after", description="The number of the last event that was read."),
]
LastEventId = Annotated[
    str | None, Header(description="The same, as a browser's EventSource sends it by itself.")
]


@router.get("/v1/searches", responses=described(_LIST))
async def list_searches(
    jobs: TheJobs,
    tenant: CurrentTenant,
    limit: Limit = 20,
    after: After = None,
    order: Ordered = Order.NEWEST,
) -> SearchJobList:
    """List this key's searches in the background, without their results."""
    return await jobs.searches.list(tenant.name, limit=limit, after=after, order=order)


@router.get("/v1/searches/{id}", responses=described(_FIND))
async def get_search(id: str, jobs: TheJobs, tenant: CurrentTenant) -> SearchJob:
    """Read a search in the background: its result, or its progress."""
    return await jobs.searches.find(tenant.name, id)


@router.post("/v1/searches/{id}/cancel", responses=described(_FIND))
async def cancel_search(id: str, jobs: TheJobs, tenant: CurrentTenant) -> SearchJob:
    """Cancel a search in the background. One that has ended stays as it is."""
    found = await jobs.searches.cancel(tenant.name, id)
    jobs.runner.wake()
    return found


@router.get(
    "/v1/searches/{id}/events",
    responses=described(_LIST) | {200: {"content": {"text/event-stream": {}}}},
    response_class=StreamingResponse,
)
async def follow_search(
    id: str,
    jobs: TheJobs,
    tenant: CurrentTenant,
    after: LastEvent = None,
    last_event_id: LastEventId = None,
) -> StreamingResponse:
    """Follow the events of a search, from the first or after a number, until it has ended. A second
    `started` says that another controller has begun it again."""
    read = after if after is not None else _number(last_event_id)
    await jobs.searches.find(tenant.name, id)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return EventSourceResponse(_events(jobs, tenant.name, id, read), headers=headers)


def _number(text: str | None) -> int:
    if text is None or text == "":
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ApiError(
            "wrong_type", "last-event-id: it is no event's number", param="last-event-id"
        )
    return int(text)


async def _events(jobs: "OpenedJobs", tenant: str, id: str, after: int) -> AsyncGenerator[bytes]:
    clock = asyncio.get_running_loop().time
    silent_since = clock()
    has_ended = False
    while True:
        try:
            events, has_ended = await jobs.searches.events(tenant, id, after)
        except StorageUnavailable as error:
            # The status is sent already, and the search outlives the outage: so does its reader.
            _log.warning("events wait for the database: %s", error)
            events = []
        except ApiError:  # Kept long enough, it was deleted.
            return
        for number, event in events:
            after = number
            data = json.dumps(event)
            yield format_sse_event(event=event["type"], data_str=data, id=str(number))
            silent_since = clock()
        if has_ended:
            return
        if clock() - silent_since > _SILENCE_SECONDS:
            yield KEEPALIVE_COMMENT
            silent_since = clock()
        # From the database, since the search may run at another controller.
        await asyncio.sleep(_POLL_SECONDS)


@router.post("/v1/files", responses=described(_UPLOAD, status_of))
async def create_file(
    request: Request,
    jobs: TheJobs,
    tenant: CurrentTenant,
    file: Annotated[UploadFile, File(description="JSON lines.")],
    purpose: Annotated[str, Form(description="`batch`.")],
) -> FileObject:
    """Upload the input of a batch. `expires_after[seconds]` deletes it by itself."""
    if purpose != "batch":
        raise ApiError("unknown_value", "purpose: send batch", param="purpose")
    seconds = _expiry(dict(await request.form()))
    return await jobs.files.add(tenant.name, file.filename or "input.jsonl", _chunks(file), seconds)


def _expiry(form: dict[str, Any]) -> float | None:
    """The seconds of OpenAI's `expires_after`, an hour to thirty days."""
    text = form.get("expires_after[seconds]")
    if text is None:
        return None
    # OpenAI's own limits.
    if not _SECONDS.fullmatch(str(text)) or not 3600 <= int(str(text)) <= 2_592_000:
        param = "expires_after.seconds"
        raise ApiError("out_of_range", f"{param}: send 3600 to 2592000", param=param)
    return float(str(text))


async def _chunks(file: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await file.read(_CHUNK):
        yield chunk


@router.get("/v1/files", responses=described(_LIST, status_of))
async def list_files(
    jobs: TheJobs,
    tenant: CurrentTenant,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    after: After = None,
    purpose: Annotated[str | None, Query(max_length=64)] = None,
    order: Ordered = Order.NEWEST,
) -> FileList:
    """List this key's files."""
    return await jobs.files.list(
        tenant.name, limit=limit, after=after, purpose=purpose, order=order
    )


@router.get("/v1/files/{id}", responses=described(_FIND, status_of))
async def get_file(id: str, jobs: TheJobs, tenant: CurrentTenant) -> FileObject:
    """Read a file's description."""
    return await jobs.files.find(tenant.name, id)


@router.get(
    "/v1/files/{id}/content",
    responses=described(_FIND, status_of),
    response_class=StreamingResponse,
)
async def get_file_content(id: str, jobs: TheJobs, tenant: CurrentTenant) -> StreamingResponse:
    """Read a file."""
    found = await jobs.files.find(tenant.name, id)
    return StreamingResponse(
        jobs.files.content(tenant.name, id),
        headers={"Content-Length": str(found.bytes)},
        media_type="application/octet-stream",
    )


@router.delete("/v1/files/{id}", responses=described(_FIND, status_of))
async def delete_file(id: str, jobs: TheJobs, tenant: CurrentTenant) -> FileDeleted:
    """Delete a file. A batch whose input was read already does not need it."""
    return await jobs.files.delete(tenant.name, id)


@router.post(
    "/v1/batches",
    responses=described(OF_ANY_BODY | _LIST | {"unknown_value"}, status_of),
    dependencies=[Depends(sent_as_json)],
)
async def create_batch(
    body: BatchRequest, request: Request, jobs: TheJobs, tenant: CurrentTenant
) -> Batch:
    """Answer every line of a file. Searches whose callers wait go first."""
    known = state_of(request.app).jobs.handlers
    if body.endpoint not in known:
        message = f"endpoint: send one of {', '.join(known)}"
        raise ApiError("unknown_value", message, param="endpoint")
    batch = await jobs.batches.add(tenant.name, body)
    jobs.runner.wake()
    return batch


@router.get("/v1/batches", responses=described(_LIST, status_of))
async def list_batches(
    jobs: TheJobs,
    tenant: CurrentTenant,
    limit: Limit = 20,
    after: After = None,
    order: Ordered = Order.NEWEST,
) -> BatchList:
    """List this key's batches."""
    return await jobs.batches.list(tenant.name, limit=limit, after=after, order=order)


@router.get("/v1/batches/{id}", responses=described(_FIND, status_of))
async def get_batch(id: str, jobs: TheJobs, tenant: CurrentTenant) -> Batch:
    """Read where a batch stands."""
    return await jobs.batches.find(tenant.name, id)


@router.post("/v1/batches/{id}/cancel", responses=described(_FIND, status_of))
async def cancel_batch(id: str, jobs: TheJobs, tenant: CurrentTenant) -> Batch:
    """Cancel a batch, what is in flight included. The answers so far become its output file."""
    batch = await jobs.batches.cancel(tenant.name, id)
    jobs.runner.wake()
    return batch
