"""Every error as the one error body, with a message that says what to do."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from stepback_core.schemas import ErrorBody, ErrorDetail
from stepback_server.checkpoint import CheckpointError
from stepback_server.engine.base import (
    EngineUnavailable,
    PromptRefused,
    ReloadFailed,
    ReloadNotOffered,
)
from stepback_server.error_codes import ERRORS
from stepback_server.gateway.admission import OutOfTokens, QueueFull
from stepback_server.gateway.idempotency import IdempotencyMismatch
from stepback_server.reload import PathRefused
from stepback_server.request_context import note

# pydantic's error types, in the words that a program can match on.
_CODES = {
    "missing": "missing_field",
    "extra_forbidden": "extra_field",
    "json_invalid": "invalid_json",
    "enum": "unknown_value",
    "value_error": "invalid_value",
    "string_pattern_mismatch": "invalid_value",
}
_OUT_OF_RANGE = ("greater_than", "less_than", "too_long", "too_short", "finite_number")
_PLACES = ("body", "header", "query")
_PREFIXED = "Value error, "
SEARCH_PATH = "/solve"
"""Errors are counted here."""


class ApiError(Exception):
    """An error to be answered with its body."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: dict[str, str] | None = None,
        status: int | None = None,
    ) -> None:
        """`code` is one of `codes.ERRORS`, which gives type and status, unless that is given."""
        super().__init__(message)
        kind = ERRORS[code]
        self.code = code
        self.status = status or kind.status
        self.body = ErrorBody(
            error=ErrorDetail(type=kind.type, message=message, param=param, code=code)
        )
        self.headers = headers

    def response(self) -> JSONResponse:
        return JSONResponse(self.body.model_dump(mode="json"), self.status, self.headers)


def invalid(errors: Sequence[Any], *, under: str | None = None) -> ApiError:
    """The first of pydantic's errors; `under` is the field that the validated value came from."""
    first = errors[0]
    kind: str = first["type"]
    if kind == "json_invalid":
        return _unparsable()
    path = [str(part) for part in first["loc"] if part not in _PLACES]
    if under is not None:
        path.insert(0, under)
    message: str = first["msg"].removeprefix(_PREFIXED)
    # Checks of the whole body name their field in front: "select: majority always votes".
    if not path and ": " in message:
        field, _, message = message.partition(": ")
        path = [field]
    param = ".".join(path) or None
    if param is None:
        message = "the body must be a JSON object; see /docs for its fields"
    code = _CODES.get(kind)
    if code is None:
        code = "out_of_range" if any(part in kind for part in _OUT_OF_RANGE) else "wrong_type"
    return ApiError(code, f"{param}: {message}" if param else message, param=param)


def _unparsable() -> ApiError:
    return ApiError(
        "invalid_json",
        "The body is not JSON in UTF-8: send one JSON object with Content-Type application/json.",
    )


def _not_ready(reason: str, retry_after: int) -> ApiError:
    return ApiError(
        "engine_unavailable",
        f"The engine is not available ({reason}): try again in {retry_after} s; GET /ready tells "
        "when.",
        headers={"Retry-After": str(retry_after)},
    )


_FAILURES = (
    ApiError,
    QueueFull,
    OutOfTokens,
    IdempotencyMismatch,
    EngineUnavailable,
    PromptRefused,
    PathRefused,
    CheckpointError,
    ReloadNotOffered,
    ReloadFailed,
    Exception,
)


def install_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    for failure in _FAILURES:
        app.add_exception_handler(failure, _on_failure)


def failure_of(error: Exception) -> ApiError:
    """What a search that raised is answered with. A defect is logged by whoever answers; what a
    caller may not know of engines is noted for the request's line in the log."""
    match error:
        case ApiError():
            return error
        case QueueFull():
            return _queue_full(error.retry_after)
        case OutOfTokens():
            return _out_of_tokens(error.retry_after)
        case IdempotencyMismatch():
            return _mismatch()
        case EngineUnavailable():
            note(reason=str(error))
            return _not_ready(error.public, error.retry_after)
        case PromptRefused():
            return _prompt_refused(str(error))
        case PathRefused() | CheckpointError() | ReloadNotOffered() | ReloadFailed():
            return _not_reloaded(error)
        case _:
            return ApiError("internal", "An error of the server's own; it has been logged.")


def _queue_full(retry_after: int) -> ApiError:
    return ApiError(
        "queue_full",
        f"Too many searches are waiting: try again in {retry_after} s.",
        headers={"Retry-After": str(retry_after)},
    )


def _out_of_tokens(retry_after: int) -> ApiError:
    return ApiError(
        "tokens_per_minute",
        f"This key has used its tokens: try again in {retry_after} s.",
        headers={"Retry-After": str(retry_after)},
    )


def _mismatch() -> ApiError:
    return ApiError(
        "idempotency_mismatch",
        "idempotency-key: it was used for another request; send a fresh one for each.",
        param="idempotency-key",
    )


def _prompt_refused(why: str) -> ApiError:
    return ApiError(
        "prompt_refused",
        f"prompt: the engine refuses it: {why}",
        param="prompt",
    )


def _not_reloaded(
    error: PathRefused | CheckpointError | ReloadNotOffered | ReloadFailed,
) -> ApiError:
    if isinstance(error, PathRefused):
        return ApiError("reload_path_refused", f"path: {error}.", param="path")
    if isinstance(error, CheckpointError):
        return ApiError("reload_mismatch", f"path: {error}", param="path")
    note(reason=str(error))
    if isinstance(error, ReloadNotOffered):
        return ApiError(
            "reload_not_offered",
            "New weights are not loaded here while the server runs: restart the engines with the "
            "new checkpoint, or see STEPBACK_RELOAD_ROOT.",
        )
    return ApiError(
        "reload_failed",
        "The engine failed at the new weights and is started anew with those of before: GET /ready "
        "tells when; the server's log has the cause under this request's id.",
    )


def _answer(request: Request, error: ApiError) -> JSONResponse:
    """Answer with an error, and count it where a search was asked for."""
    if request.url.path == SEARCH_PATH:
        request.app.state.service.metrics.refused(error.code)
    note(code=error.code)
    return error.response()


async def _on_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return _answer(request, invalid(error.errors()))


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:
        return _answer(request, _unparsable())
    code = {404: "no_such_path", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    message = f"{error.detail}: see /docs for the paths and methods."
    headers = dict(error.headers) if error.headers else None
    return _answer(request, ApiError(code, message, headers=headers, status=error.status_code))


async def _on_failure(request: Request, error: Exception) -> JSONResponse:
    return _answer(request, failure_of(error))
