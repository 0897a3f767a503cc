"""Base classes of the models that cross HTTP."""

from pydantic import BaseModel, ConfigDict


class ResponseModel(BaseModel):
    """Base of responses. Ignores unknown fields, so that a client outlives an addition."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


class RequestModel(BaseModel):
    """Base of requests. Refuses unknown fields and values of another type."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )
