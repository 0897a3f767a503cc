"""What the client raises.

StepbackError
├── TransportError           no answer: refused, reset, timed out, or not a Stepback server's
└── ApiError                 an answer with an error body
    ├── InvalidRequest       400, 413, 415, 422: change the request; `param` names the field
    ├── AuthenticationError  401: the API key is missing or unknown
    ├── NotFound             404: unknown task, model or path
    ├── Overloaded           429: queue full, or the key's tokens used up; `retry_after` says when
    └── Unavailable          503: the engine is not ready, or has died
"""

from collections.abc import Mapping

from stepback_core.schemas import ErrorBody, ErrorDetail


class StepbackError(Exception):
    """The root of what the client raises."""


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
        self.request_id = request_id
        """The request's name in the server's log; None where the server gave none."""
        self.code = detail.code if detail else None
        self.param = detail.param if detail else None
        self.retry_after = retry_after

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} (request {self.request_id})" if self.request_id else message


class InvalidRequest(ApiError):
    """The request is at fault."""


class AuthenticationError(ApiError):
    """The API key is missing, or the server does not know it."""


class NotFound(ApiError):
    """There is no such task, model or path."""


class Overloaded(ApiError):
    """The server's queue is full, or the key's tokens of this minute are used up."""


class Unavailable(ApiError):
    """The server's engine is not ready."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidRequest,
    401: AuthenticationError,
    404: NotFound,
    413: InvalidRequest,
    415: InvalidRequest,
    422: InvalidRequest,
    429: Overloaded,
    503: Unavailable,
}


def error_for(status: int, content: bytes, headers: Mapping[str, str]) -> ApiError:
    """The error that an answer stands for; `headers` has Retry-After and X-Request-Id."""
    try:
        detail = ErrorBody.model_validate_json(content).error
    except ValueError:
        detail = None
    retry_after = headers.get("Retry-After", "")
    seconds = float(retry_after) if retry_after.isdigit() else None
    return error_of(status, detail, seconds, headers.get("X-Request-Id"))


def error_of(
    status: int,
    detail: ErrorDetail | None,
    retry_after: float | None = None,
    request_id: str | None = None,
) -> ApiError:
    """The error that a status and its details stand for; `retry_after` is in seconds."""
    return _BY_STATUS.get(status, ApiError)(status, detail, retry_after, request_id)
