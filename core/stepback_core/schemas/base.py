"""Base classes of the models that cross HTTP."""

from typing import Any, cast

from pydantic import BaseModel, ConfigDict, model_validator

from stepback_core.validation import whole


class ResponseModel(BaseModel):
    """Base of responses. Ignores unknown fields, so that a client outlives an addition."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


class IntegersOfJson(BaseModel):
    """Base of what takes `16.0` for an integer, as JSON Schema does."""

    @model_validator(mode="before")
    @classmethod
    def _integers(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        fields = cast("dict[str, Any]", data)
        return {name: whole(value) for name, value in fields.items()}


class RequestModel(IntegersOfJson):
    """Base of requests. Refuses unknown fields and values of another type."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )
