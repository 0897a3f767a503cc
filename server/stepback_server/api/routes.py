"""The HTTP routes."""

from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from stepback_core.trace import PROTOCOL_VERSION
from stepback_core.wire import (
    ErrorBody,
    Health,
    ModelList,
    Readiness,
    SolveRequest,
    SolveResult,
    Version,
)
from stepback_server.api.limits import CallerGone, until_hang_up
from stepback_server.api.sse import EventStream
from stepback_server.service import Service

router = APIRouter()

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": text}
    for status, text in {
        400: "The body is not JSON",
        404: "Unknown task or model",
        413: "The body is too large",
        422: "A field is missing, unknown, of the wrong type or out of range",
        429: "The queue is full; see Retry-After",
        500: "An error of the server's own",
        503: "The engine is not ready, has died, or the server is stopping",
    }.items()
}
_CLIENT_CLOSED_REQUEST = 499


def _service(request: Request) -> Service:
    return cast("Service", request.app.state.service)


TheService = Annotated[Service, Depends(_service)]


@router.post("/solve", responses=_ERRORS, tags=["search"])
async def solve(body: SolveRequest, request: Request, service: TheService) -> SolveResult:
    """Search for the answer to one problem. With `stream`, tell the search as it runs."""
    try:
        if body.stream:
            live = await until_hang_up(request, service.watch(body))
            return cast("SolveResult", EventStream(live, service.metrics.refused))
        return await until_hang_up(request, service.solve(body))
    except CallerGone:
        # Nobody reads this; the status is for the access log.
        return cast("SolveResult", Response(status_code=_CLIENT_CLOSED_REQUEST))


@router.get("/health", tags=["operation"])
async def health() -> Health:
    """The process lives."""
    return Health()


@router.get("/ready", responses={503: {"model": Readiness}}, tags=["operation"])
async def ready(service: TheService) -> Readiness:
    """Whether a search would be taken now: the engine is up and the queue is not full."""
    readiness = await service.readiness()
    if readiness.ready:
        return readiness
    return cast("Readiness", JSONResponse(readiness.model_dump(), 503))


@router.get("/metrics", response_class=PlainTextResponse, tags=["operation"])
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
    )


@router.get("/v1/models", tags=["operation"])
async def models(service: TheService) -> ModelList:
    """The served model and the tasks that it knows."""
    return ModelList(data=[service.model])
