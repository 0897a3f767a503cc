"""Lines out of pydantic's report of what is wrong."""

from pydantic import ValidationError

_OWN = "Value error, "


def first_error(error: ValidationError, *, whole: str) -> str:
    """The first error as `field: what is wrong`; `whole` names what has no field to blame."""
    return every_error(error, whole=whole)[0]


def every_error(error: ValidationError, *, whole: str) -> list[str]:
    """Each error as `field: what is wrong`."""
    return [
        f"{'.'.join(map(str, one['loc'])) or whole}: {one['msg'].removeprefix(_OWN)}"
        for one in error.errors()
    ]
