"""The one error body."""

from enum import StrEnum

from stepback_core.schemas.base import ResponseModel


class ErrorType(StrEnum):
    INVALID_REQUEST = "invalid_request"
    AUTHENTICATION = "authentication"
    NOT_FOUND = "not_found"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


class ErrorDetail(ResponseModel):
    type: ErrorType
    """The kind of error."""
    message: str
    """The fault, and the remedy."""
    param: str | None = None
    """The field at fault, dotted."""
    code: str
    """A stable name for programs, such as `out_of_range`."""


class ErrorBody(ResponseModel):
    """The one body of every error."""

    error: ErrorDetail
    """The error."""
