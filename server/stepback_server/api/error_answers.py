"""Error answers in the OpenAPI schema."""

from collections.abc import Callable, Collection
from typing import Any

from stepback_core.schemas import ErrorBody
from stepback_server.errors import ERRORS, ErrorKind

OF_ANY_BODY = frozenset(
    {"invalid_json", "not_declared_as_json", "missing_key", "unknown_key", "body_too_large"}
    | {"missing_field", "extra_field", "wrong_type", "out_of_range", "internal"}
)
"""Codes of every route that has a JSON body and needs a key."""


def _own_status(kind: ErrorKind) -> int:
    return kind.status


def described(
    codes: Collection[str], status_of: Callable[[ErrorKind], int] = _own_status
) -> dict[int | str, dict[str, Any]]:
    """The schema of each status: every code that it stands for."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in sorted({status_of(ERRORS[code]) for code in codes}):
        meanings = (
            f"`{code}`: {kind.meaning}"
            for code, kind in ERRORS.items()
            if status_of(kind) == status and code in codes
        )
        # OpenAPI has one answer a status, and several codes may share it.
        found[status] = {"model": ErrorBody, "description": "\n\n".join(meanings)}
    return found
