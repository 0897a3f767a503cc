"""One line out of pydantic's report of what is wrong."""

from pydantic import ValidationError


def first_error(error: ValidationError, *, whole: str) -> str:
    """The first error as `field: what is wrong`; `whole` names what has no field to blame."""
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"])) or whole
    return f"{field}: {first['msg']}"
