"""Many problems in one call of `POST /solve/batch`, and the rows of its answer."""

from typing import Any

from pydantic import Field, JsonValue

from stepback_core.schemas.base import RequestModel, ResponseModel
from stepback_core.schemas.errors import ErrorDetail
from stepback_core.schemas.result import SolveResult


class BatchSolveRequest(RequestModel):
    """Problems, and what their searches have in common."""

    requests: list[dict[str, JsonValue]] = Field(min_length=1)
    """Requests of `/solve`, without `stream`. One that is refused fails alone."""
    defaults: dict[str, JsonValue] = Field(default={})
    """Fields of `/solve` for every request that does not give them itself."""

    def row(self, index: int) -> dict[str, Any]:
        """The whole request at a place."""
        return {**self.defaults, **self.requests[index]}


class BatchRow(ResponseModel):
    """One line of the answer, in order of ending."""

    index: int
    """The request's place in the call, from 0."""
    status: int
    """The HTTP status that the request alone would have had."""
    result: SolveResult | None = None
    """Its result."""
    error: ErrorDetail | None = None
    """Reason why there is none."""
    retry_after: int | None = None
    """Seconds after which to try it again, where that helps."""
