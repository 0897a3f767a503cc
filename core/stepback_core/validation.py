"""Whole numbers as JSON has them, and lines out of pydantic's report of what is wrong."""

from collections.abc import Callable
from typing import Annotated, LiteralString, cast

from pydantic import BeforeValidator, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

_PREFIX = "Value error, "


def whole(value: object) -> object:
    """Return 16 for 16.0, which JSON Schema takes for the same integer; else the value."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(whole)]
"""An integer, also as a number without a fraction."""


def with_rule(error: ValidationError, rule: str) -> ValidationError:
    """Return the same error with a rule after each of its messages."""
    return _retold(error, lambda one: f"{own_message(one['msg'])}; {rule}")


def in_other_words(
    error: ValidationError, reword: Callable[[str, tuple[int | str, ...]], str | None]
) -> ValidationError:
    """Return the same error; `reword` takes an error's type and path, and gives the message that it
    has instead, if any."""
    return _retold(error, lambda one: reword(one["type"], one["loc"]) or own_message(one["msg"]))


def _retold(error: ValidationError, told: Callable[[ErrorDetails], str]) -> ValidationError:
    return ValidationError.from_exception_data(
        error.title,
        [
            InitErrorDetails(
                type=PydanticCustomError(
                    cast("LiteralString", one["type"]), "{told}", {"told": told(one)}
                ),
                loc=one["loc"],
                input=one["input"],
            )
            for one in error.errors()
        ],
    )


def own_message(message: str) -> str:
    """Return pydantic's message without what it puts before the text of a ValueError."""
    return message.removeprefix(_PREFIX)


def first_error(error: ValidationError, *, whole: str) -> str:
    """The first error as `field: what is wrong`; `whole` names what has no field to blame."""
    return every_error(error, whole=whole)[0]


def every_error(error: ValidationError, *, whole: str) -> list[str]:
    """Each error as `field: what is wrong`."""
    return [
        f"{'.'.join(map(str, one['loc'])) or whole}: {own_message(one['msg'])}"
        for one in error.errors()
    ]
