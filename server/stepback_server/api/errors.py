"""Every error as the one error body, with a message that says what to do."""

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from stepback_core.wire import ErrorBody, ErrorDetail, ErrorType
from stepback_server.admission import OutOfTokens, QueueFull
from stepback_server.engine.base import EngineUnavailable, PromptRefused
from stepback_server.idempotency import IdempotencyMismatch

_log = logging.getLogger(__name__)

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
_PREFIXED = "Value error, "


class ApiError(Exception):
    """An error to be answered with its body."""

    def __init__(
        self,
        status: int,
        kind: ErrorType,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = ErrorBody(error=ErrorDetail(type=kind, message=message, param=param, code=code))
        self.headers = headers

    def response(self) -> JSONResponse:
        return JSONResponse(self.body.model_dump(mode="json"), self.status, self.headers)


def invalid(errors: Sequence[Any], *, under: str | None = None) -> ApiError:
    """The first of pydantic's errors; `under` is the field that the validated value came from."""
    first = errors[0]
    kind: str = first["type"]
    if kind == "json_invalid":
        return _unparsable()
    path = [str(part) for part in first["loc"] if part not in ("body", "header")]
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
    return ApiError(
        422,
        ErrorType.INVALID_REQUEST,
        code,
        f"{param}: {message}" if param else message,
        param=param,
    )


def _unparsable() -> ApiError:
    return ApiError(
        400,
        ErrorType.INVALID_REQUEST,
        "invalid_json",
        "The body is not JSON in UTF-8: send one JSON object with Content-Type application/json.",
    )


def not_ready(reason: str) -> ApiError:
    return ApiError(
        503,
        ErrorType.UNAVAILABLE,
        "engine_unavailable",
        f"The engine is not available ({reason}): try again shortly; GET /ready tells when.",
        headers={"Retry-After": "2"},
    )


def install_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(QueueFull, _on_queue_full)
    app.add_exception_handler(OutOfTokens, _on_out_of_tokens)
    app.add_exception_handler(IdempotencyMismatch, _on_mismatch)
    app.add_exception_handler(EngineUnavailable, _on_unavailable)
    app.add_exception_handler(PromptRefused, _on_refused)
    app.add_exception_handler(Exception, _on_defect)


def _answer(request: Request, error: ApiError) -> JSONResponse:
    """Answer with an error, and count it where a search was asked for."""
    if request.url.path == "/solve":
        request.app.state.service.metrics.refused(error.body.error.code)
    return error.response()


async def _on_api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    return _answer(request, error)


async def _on_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return _answer(request, invalid(error.errors()))


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:
        return _answer(request, _unparsable())
    kind = ErrorType.NOT_FOUND if error.status_code == 404 else ErrorType.INVALID_REQUEST
    code = {404: "no_such_path", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    message = f"{error.detail}: see /docs for the paths and methods."
    headers = dict(error.headers) if error.headers else None
    return _answer(request, ApiError(error.status_code, kind, code, message, headers=headers))


async def _on_queue_full(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, QueueFull)
    return _answer(
        request,
        ApiError(
            429,
            ErrorType.OVERLOADED,
            "queue_full",
            f"Too many searches are waiting: try again in {error.retry_after} s.",
            headers={"Retry-After": str(error.retry_after)},
        ),
    )


async def _on_out_of_tokens(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OutOfTokens)
    return _answer(
        request,
        ApiError(
            429,
            ErrorType.OVERLOADED,
            "tokens_per_minute",
            f"This key has used its tokens: try again in {error.retry_after} s.",
            headers={"Retry-After": str(error.retry_after)},
        ),
    )


async def _on_mismatch(request: Request, error: Exception) -> JSONResponse:
    return _answer(
        request,
        ApiError(
            422,
            ErrorType.INVALID_REQUEST,
            "idempotency_mismatch",
            "idempotency-key: it was used for another request; send a fresh one for each.",
            param="idempotency-key",
        ),
    )


async def _on_unavailable(request: Request, error: Exception) -> JSONResponse:
    return _answer(request, not_ready(str(error)))


async def _on_refused(request: Request, error: Exception) -> JSONResponse:
    return _answer(
        request,
        ApiError(
            422,
            ErrorType.INVALID_REQUEST,
            "prompt_refused",
            f"prompt: the engine refuses it: {error}",
            param="prompt",
        ),
    )


async def _on_defect(request: Request, error: Exception) -> JSONResponse:
    _log.error("unexpected error", exc_info=error)
    return _answer(
        request,
        ApiError(
            500, ErrorType.INTERNAL, "internal", "An error of the server's own; it has been logged."
        ),
    )
