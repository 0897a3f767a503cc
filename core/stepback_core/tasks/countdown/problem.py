"""Countdown: the schema that callers write."""

from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from stepback_core.validation import Whole, with_rule

_RULE = (
    "this Countdown has 2 to 6 integers from 1 to 99, all of them used, each once, "
    "and a target from 1 to 199"
)


class CountdownProblem(BaseModel):
    """Numbers to combine and the target to reach."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )

    numbers: list[Annotated[Whole, Field(ge=1, le=99)]] = Field(
        min_length=2, max_length=6, examples=[[13, 15, 48, 93]]
    )
    """Two to six inputs, each 1..99; order is irrelevant."""
    target: Whole = Field(ge=1, le=199, examples=[16])
    """The last result that is wanted. Test problems have 10..100; training goes a little beyond."""

    @model_validator(mode="wrap")
    @classmethod
    def _say_the_rule(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            # pydantic's own message would name a bound, and not the game that it belongs to.
            raise with_rule(error, _RULE) from None
