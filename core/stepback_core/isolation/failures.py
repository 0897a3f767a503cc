"""The ways in which a checker can fail to give a verdict."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any


class FailureKind(StrEnum):
    """The first word of the reason of an answer that stays unverified."""

    TIMEOUT = "checker_timeout"
    """No answer within the limit of a call."""
    CRASHED = "checker_crashed"
    """The call's process ended before its answer."""
    FORBIDDEN = "checker_forbidden"
    """An attempt at what a checker may not do: a socket, a process."""
    RAISED = "checker_raised"
    """An exception of the checker's own."""
    BROKEN = "checker_broken"
    """Its answer is not what the interface says."""
    UNAVAILABLE = "checker_unavailable"
    """Its worker does not start, or this search has lost too many calls."""


class CheckerFailure(Exception):
    """A call that has no answer."""

    def __init__(self, kind: FailureKind, detail: str, verdicts: Sequence[object] = ()) -> None:
        super().__init__(f"{kind}: {' '.join(detail.split())[:200]}")
        self.kind = kind
        self._detail = detail
        self.verdicts = verdicts
        """Verdicts that the call gave before it failed, as its process sent them."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception would be made again from its message alone, which has the kind in it already.
        return type(self), (self.kind, self._detail, self.verdicts), self.__dict__

    @property
    def reason(self) -> str:
        """The reason as a caller reads it."""
        return str(self)
