"""The HTTP routes."""

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from stepback_core.schemas import (
    Health,
    ModelList,
    Readiness,
    Reload,
    ReloadRequest,
    SolveRequest,
    SolveResult,
    Version,
)
from stepback_core.schemas.jobs import SearchJob
from stepback_core.trace import PROTOCOL_VERSION
from stepback_server.api.authentication import CurrentTenant, authenticate_for_metrics
from stepback_server.api.body import StrictRoute, sent_as_json
from stepback_server.api.error_answers import OF_ANY_BODY, described
from stepback_server.api.middleware import until_hang_up
from stepback_server.api.paths import SEARCH_PATH
from stepback_server.api.sse import EventStream
from stepback_server.api.state import state_of
from stepback_server.concurrency import Interrupted
from stepback_server.errors import ERRORS, ApiError
from stepback_server.gateway.tenant import Tenant
from stepback_server.request_context import CLIENT_CLOSED_REQUEST, note
from stepback_server.service import Service

router = APIRouter(route_class=StrictRoute)

_ROUTING_ERRORS = frozenset({"no_such_path", "method_not_allowed", "http_error"})
_RELOAD_CODES = frozenset(code for code in ERRORS if code.startswith("reload_"))
SEARCH_ERRORS = described(
    ERRORS.keys()
    - _ROUTING_ERRORS
    - _RELOAD_CODES
    - {"unknown_id", "model_not_found", "unsupported_parameter", "engine_lost"}
)
_ACCEPTED = "With `background`: the search is kept, and runs when it is its turn."
_RELOAD_ERRORS = described(_RELOAD_CODES | OF_ANY_BODY | {"unknown_model", "engine_unavailable"})


async def _service(request: Request) -> Service:
    return state_of(request.app).service


TheService = Annotated[Service, Depends(_service)]


# Printable ASCII: it goes into a database and into logs.
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[!-~]+$",
        description="Your own name for this request. One that is sent again with the same body "
        "joins the search that runs, or gets its result, instead of searching twice. With `stream` "
        "it is told `started` and `result` then, once there is a result.",
    ),
]


@router.post(
    SEARCH_PATH,
    responses=SEARCH_ERRORS | {202: {"model": SearchJob, "description": _ACCEPTED}},
    response_model=SolveResult,
    tags=["search"],
    dependencies=[Depends(sent_as_json)],
)
async def solve(
    body: SolveRequest,
    request: Request,
    service: TheService,
    tenant: CurrentTenant,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Search for the answer to one problem. With `stream`, tell the search as it runs; with
    `background`, answer at once and search later."""
    if body.background:
        job = await _in_background(body, request, tenant, idempotency_key)
        return JSONResponse(job.model_dump(mode="json"), 202)
    searches = service.searches
    try:
        if body.stream:
            async with until_hang_up(request):
                live = await searches.watch(body, tenant, idempotency_key)
            headers = replayed_headers() if live.is_joined else {}
            return EventStream(live, headers=headers)
        async with until_hang_up(request):
            content, replayed = await searches.content(body, tenant, idempotency_key)
    except Interrupted:
        # Nobody reads this; the status is for the access log.
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    if not replayed:
        return Response(content, media_type="application/json")
    return Response(content, headers=replayed_headers(), media_type="application/json")


async def _in_background(
    body: SolveRequest, request: Request, tenant: Tenant, key: str | None
) -> SearchJob:
    state = state_of(request.app)
    # Refused now and not in the job: its caller may not look at it for hours.
    await state.service.check(body)
    jobs = await state.jobs.opened()
    job = await jobs.searches.add(tenant.name, SEARCH_PATH, _as_sent(body), key)
    jobs.runner.wake()
    return job


def _as_sent(body: SolveRequest) -> str:
    # Unset stays unset: defaults are those of the controller that runs it.
    return body.model_dump_json(exclude_unset=True)


def replayed_headers() -> dict[str, str]:
    """Headers of an answer that another request's search gave."""
    note(replayed=True)
    return {"Idempotent-Replayed": "true"}


@router.get("/health", tags=["operation"])
async def health() -> Health:
    """The process lives."""
    return Health()


class ReadyFor(StrEnum):
    """Purpose of asking for readiness: a single search, or traffic in general."""

    SEARCH = "search"
    TRAFFIC = "traffic"


AskedFor = Annotated[
    ReadyFor,
    Query(
        alias="for",
        description="`search`: a full queue is not ready. `traffic`, for the probe of a load "
        "balancer: it is, since callers are better told 429 than left without an answer.",
    ),
]


@router.get(
    "/ready",
    response_model=Readiness,
    responses={503: {"model": Readiness}} | described({"unknown_value"}),
    tags=["operation"],
)
async def ready(
    service: TheService, asked_for: AskedFor = ReadyFor.SEARCH
) -> Readiness | JSONResponse:
    """Readiness for a search: the engine is up and the queue is not full."""
    readiness = await service.readiness(though_full=asked_for is ReadyFor.TRAFFIC)
    if readiness.ready:
        return readiness
    return JSONResponse(readiness.model_dump(), 503)


@router.get(
    "/metrics",
    response_class=PlainTextResponse,
    responses={401: SEARCH_ERRORS[401]},
    tags=["operation"],
    dependencies=[Depends(authenticate_for_metrics)],
)
async def metrics(service: TheService) -> Response:
    """Prometheus' text form: the server's own metrics and the engine's."""
    return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)


@router.get("/version", tags=["operation"])
async def version(service: TheService) -> Version:
    return Version(
        stepback=service.version,
        vllm=service.vllm_version,
        protocol=PROTOCOL_VERSION,
        model=service.model.id,
        digest=service.model.digest,
    )


@router.get("/v1/models", responses={401: SEARCH_ERRORS[401]}, tags=["operation"])
async def models(service: TheService, _: CurrentTenant) -> ModelList:
    """The served model and the tasks that it knows; then the model with each strategy, for clients
    that can choose nothing but a model."""
    return ModelList(data=service.models)


@router.post(
    "/v1/models/{name:path}/reload",
    responses=_RELOAD_ERRORS,
    tags=["operation"],
    dependencies=[Depends(sent_as_json)],
)
async def reload(name: str, body: ReloadRequest, service: TheService, _: CurrentTenant) -> Reload:
    """Load new weights of the served model into the running engines. Searches in flight may end
    first, within the server's grace period; new ones wait."""
    if name != service.model.id:
        raise ApiError(
            "unknown_model", f"model: this server has {service.model.id!r}.", param="model"
        )
    return await service.reload(body.path)
