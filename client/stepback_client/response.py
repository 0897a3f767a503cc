"""Answers of a server as typed results, or as errors."""

from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from stepback_client.errors import TransportError, error_for
from stepback_core.schemas import Readiness

T = TypeVar("T", bound=BaseModel)


def read_readiness(response: httpx.Response) -> Readiness:
    """Readiness, be it yes (200) or no (503)."""
    # For /ready it is an answer, not an error.
    if response.status_code == 503:
        response = httpx.Response(200, content=response.content, request=response.request)
    return read(response, Readiness)


def read(response: httpx.Response, kind: type[T]) -> T:
    """The typed answer. Raises ApiError, or TransportError for an answer of something else."""
    try:
        return kind.model_validate_json(checked(response).content)
    except ValidationError as error:
        raise TransportError(f"{response.url} gave what is not a Stepback answer") from error


def checked(response: httpx.Response) -> httpx.Response:
    """The answer itself. Raises ApiError where it is an error, which must have been read."""
    if response.is_success:
        return response
    raise error_for(response.status_code, response.content, response.headers)
