"""The interface of a task: a problem model, a prompt and a checker; more is optional.

A checker is frozen data plus pure functions. It knows nothing of tokens, models or HTTP. The
problems and wrong steps of training data are made by `stepback_training.generators`.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Self, TypeVar

from pydantic import BaseModel


class Reason(StrEnum):
    """Known reasons for refusing an answer or a step; a checker may give any other text."""

    NOT_REACHED = "not_reached"
    WRONG_ARITHMETIC = "wrong_arithmetic"
    UNAVAILABLE_OPERAND = "unavailable_operand"
    MALFORMED_STEP = "malformed_step"
    WALL = "wall"
    """Maze: the move goes through a wall, or out of the maze."""
    WRONG_CELL = "wrong_cell"
    """Maze: the move does not lead to the cell that the step names."""
    REVISITED = "revisited"
    """Maze: the way has been there already."""
    CONFLICT = "conflict"
    """Sudoku: the digit stands in that row, column or box already."""
    OCCUPIED = "occupied"
    """Sudoku: the cell has a digit already."""
    UNSTATED = "unstated"
    """Deduction: no sentence says so, and it is not the answer that the steps have shown."""
    UNCONNECTED = "unconnected"
    """Deduction: the sentence does not go on from where the steps have led."""
    CONTRADICTION = "contradiction"
    """Knights: a statement, all of whose people have roles, would not fit them."""
    REPEATED = "repeated"
    """Knights: the person has a role already."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A checker's judgement of a whole answer."""

    # Three values: a checker that could not judge is not one that refuses.
    strict: bool | None
    """The verdict; None if the checker gave none: the answer is unverified, whatever it says."""
    lax: bool | None
    """The judgement of a published, more lenient checker; equal to `strict` without one."""
    reason: str | None
    """The reason of a strict refusal: one of `Reason` or a text of the checker's own."""

    @classmethod
    def of(cls, reason: str | None) -> Self:
        """Refuse for a reason, or accept if there is none."""
        return cls(reason is None, reason is None, reason)


P = TypeVar("P", bound=BaseModel)


class Checker(ABC, Generic[P]):
    """One task. `P` is its problem model.

    Three attributes and two methods are required. The optional methods answer "not known" by
    default, and a search uses whatever is known.
    """

    name: str
    """The name in requests, recipes and `/v1/models`."""
    problem_type: type[P]
    example: P
    """A small problem, for documentation; not one that training may see."""

    @abstractmethod
    def prompt(self, problem: P) -> str:
        """Return the problem as the model reads it, before framing."""

    @abstractmethod
    def check(self, problem: P, steps: Sequence[str]) -> Verdict:
        """Judge a whole answer."""

    def claims_goal(self, problem: P, steps: Sequence[str]) -> bool:
        """Tell if the steps claim to reach the goal, legal or not; default: any answer does."""
        return bool(steps)

    def check_step(self, problem: P, prefix: Sequence[str], step: str) -> str | None:
        """Return why a step is illegal after a legal prefix; None if it is legal or unknown."""
        return None

    def can_finish(self, problem: P, steps: Sequence[str]) -> bool:
        """Tell if the goal can still be reached after the steps; True if that is unknown."""
        return True

    def state_key(self, problem: P, steps: Sequence[str]) -> Hashable | None:
        """Return what is left to solve after the steps; None if one of them is illegal.

        Equal keys are one state, whatever steps led there: a search may merge states of one problem
        by it. By default every path of legal steps is a state of its own.
        """
        # Quadratic in the steps, and right for any task: one with a cheaper state overrides it.
        for length, step in enumerate(steps):
            if self.check_step(problem, steps[:length], step) is not None:
                return None
        return tuple(steps)

    def picture(self, problem: P, steps: Sequence[str]) -> str | None:
        """Draw the problem in ASCII after the legal steps; None if there is nothing to draw."""
        return None
