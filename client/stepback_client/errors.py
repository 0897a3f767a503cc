"""Errors of the client.

StepbackError
├── BadSetting               an argument or a variable that this client cannot use
│   └── InvalidKey               an API key that no header can carry
├── TransportError           no answer: refused, reset, timed out, or not a Stepback server's
└── ApiError                 an answer with an error body
    ├── InvalidRequest       400, 413, 415, 422: change the request; `param` names the field
    ├── AuthenticationError  401: the API key is missing or unknown
    ├── NotFound             404: unknown task, model or path
    ├── Overloaded           429: queue full, or the key's tokens used up; `retry_after` says when
    └── Unavailable          502, 503, 504: the engine, or a gateway on the way, is not ready

All of them can be pickled, so that a pool of processes hands them on whole.
"""

import email.utils
import time
from collections.abc import Mapping
from typing import Any

import httpx

from stepback_core.schemas import ErrorBody, ErrorDetail


class StepbackError(Exception):
    """The root of what the client raises."""


class BadSetting(StepbackError, ValueError):
    """An argument, or a variable of the environment, that this client cannot use."""


class InvalidKey(BadSetting):
    """An API key that no header can carry. The message does not repeat it."""


class TransportError(StepbackError):
    """No answer of a Stepback server could be had."""


class ApiError(StepbackError):
    """The server answered with an error."""

    def __init__(
        self,
        status: int,
        detail: ErrorDetail | None,
        retry_after: float | None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(detail.message if detail else f"HTTP {status} without an error body")
        self.status = status
        self.detail = detail
        """The error body; None if the answer had none of ours."""
        self.request_id = request_id
        """The request's name in the server's log; None if the server gave none."""
        self.code = detail.code if detail else None
        self.param = detail.param if detail else None
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception would be made again from its message alone.
        given = (self.status, self.detail, self.retry_after, self.request_id)
        return type(self), given, self.__dict__

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} (request {self.request_id})" if self.request_id else message


class InvalidRequest(ApiError):
    """The request is at fault."""


class AuthenticationError(ApiError):
    """The API key is missing, or the server does not know it."""


class NotFound(ApiError):
    """Unknown task, model or path."""


class Overloaded(ApiError):
    """The server's queue is full, or the key's tokens of this minute are used up."""


class Unavailable(ApiError):
    """The server's engine is not ready, or a gateway does not reach the server."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidRequest,
    401: AuthenticationError,
    404: NotFound,
    413: InvalidRequest,
    415: InvalidRequest,
    422: InvalidRequest,
    429: Overloaded,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def error_for(status: int, content: bytes, headers: Mapping[str, str]) -> ApiError:
    """The error that an answer stands for; `headers` has Retry-After and X-Request-Id."""
    try:
        detail = ErrorBody.model_validate_json(content).error
    except ValueError:
        detail = None
    return error_of(status, detail, seconds_to_wait(headers), headers.get("X-Request-Id"))


def error_of(
    status: int,
    detail: ErrorDetail | None,
    retry_after: float | None = None,
    request_id: str | None = None,
) -> ApiError:
    """The error that a status and its details stand for; `retry_after` is in seconds."""
    return _BY_STATUS.get(status, ApiError)(status, detail, retry_after, request_id)


def seconds_to_wait(headers: Mapping[str, str]) -> float | None:
    """The seconds of Retry-After, which has a number or, from some gateways, a date; None if it
    is absent or neither."""
    said = headers.get("Retry-After", "").strip()
    if said.isdecimal():
        return float(said)
    date = email.utils.parsedate_tz(said)
    return max(0.0, email.utils.mktime_tz(date) - time.time()) if date else None


def no_answer(method: str, path: str, error: httpx.HTTPError) -> TransportError:
    """The error where the network gave no answer."""
    return TransportError(f"{method} {path}: {str(error) or type(error).__name__}")
