"""The first wrong step among given ones, and its kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from stepback_core.tasks import Checker, Reason
from stepback_training.generators.base import ErrorKind

_COMPUTATIONAL = frozenset(
    {Reason.WRONG_ARITHMETIC, Reason.WRONG_CELL, Reason.UNSTATED, Reason.CONTRADICTION}
)


@dataclass(frozen=True, slots=True)
class Mistake:
    """The first wrong step of some steps."""

    index: int
    """Number of right steps before it."""
    kind: ErrorKind


def first_mistake(
    checker: Checker[Any], problem: BaseModel, steps: Sequence[str]
) -> Mistake | None:
    """The first step that is illegal, or after which the goal of a solvable problem is out of
    reach. None if there is none: the steps solve the problem, or can still go on to."""
    for index, step in enumerate(steps):
        reason = checker.check_step(problem, steps[:index], step)
        if reason is not None:
            return Mistake(index, kind_of(reason))
        if not checker.can_finish(problem, steps[: index + 1]):
            return Mistake(index, ErrorKind.EXPLORATION)
    return None


def kind_of(reason: str) -> ErrorKind:
    """The kind of an illegal step. One that is malformed violates the rules, too."""
    return ErrorKind.COMPUTATIONAL if reason in _COMPUTATIONAL else ErrorKind.RULE_VIOLATION
