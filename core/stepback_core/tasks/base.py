"""What a task is: a problem model, a prompt, reference paths, wrong steps, a checker, a picture.

A task is frozen data plus pure functions. It knows nothing of tokens, models or HTTP.
"""

import hashlib
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any, Protocol, Self, TypeVar

from pydantic import BaseModel, ConfigDict


class Reason(StrEnum):
    """Why an answer, or a step, is refused."""

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


class ErrorKind(StrEnum):
    """The kinds of wrong step that training data is made of (arXiv 2502.04404)."""

    EXPLORATION = "exploration"
    """A legal step after which the goal can no longer be reached."""
    COMPUTATIONAL = "computational"
    """A step that is computed wrongly: an equation's result, the cell that a move leads to."""
    RULE_VIOLATION = "rule_violation"
    """A step that the rules forbid: an operand that is not available, a move through a wall."""


class Split(StrEnum):
    """Where a problem belongs. The two test kinds share no inputs with training."""

    TRAIN = "train"
    TEST_SEEN = "test_seen"
    """Test inputs; where the task has targets, one that training has seen with other inputs."""
    TEST_NEW = "test_new"
    """Test inputs, a target held out of training altogether; only where the task has targets."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A checker's judgement of a whole answer."""

    strict: bool
    lax: bool
    reason: Reason | None
    """Why strict refused; None where it accepted."""


def is_test_input(canonical: str) -> bool:
    """Whether canonical inputs belong to the test split: first byte of SHA-256 below 26 (10 %)."""
    return hashlib.sha256(canonical.encode()).digest()[0] < 26


class NoOptions(BaseModel):
    """The options of a task whose generator has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


P = TypeVar("P", bound=BaseModel)


class Task(Protocol[P]):
    """One task. `P` is its problem model."""

    @property
    def name(self) -> str: ...
    @property
    def problem_type(self) -> type[P]: ...
    @property
    def split_rule(self) -> str:
        """The data split in words, for model cards."""
        ...

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that the task has problems for."""
        ...

    @property
    def error_kinds(self) -> tuple[ErrorKind, ...]:
        """The kinds of wrong step that the task can make."""
        ...

    @property
    def example(self) -> P:
        """A small problem of the test split, for documentation."""
        ...

    def with_options(self, options: Mapping[str, Any]) -> Self:
        """The same task, whose generator draws as a recipe's options say; the rules stay.

        Raises pydantic's ValidationError for options that the generator does not have."""
        ...

    def prompt(self, problem: P) -> str:
        """The problem as the model reads it, before framing."""
        ...

    def split(self, problem: P) -> Split | None:
        """The split that a problem belongs to; None where it is kept out of every split."""
        ...

    def stream(self, split: Split, rng: Random) -> Iterator[P]:
        """Solvable problems of a split, without end. Training problems may share their inputs, so
        that the search for reference paths is paid once for several; test problems do not.

        Raises ValueError for a split that the task does not have."""
        ...

    def reference_paths(self, problem: P) -> list[list[str]]:
        """Correct paths, as steps, the plainest first: all of them, or the plainest where they are
        beyond counting. None where there is no solution."""
        ...

    def wrong_step(
        self, problem: P, prefix: Sequence[str], kind: ErrorKind, rng: Random
    ) -> str | None:
        """A wrong step of a kind after a correct prefix; None where there is none of that kind."""
        ...

    def follow_up(self, problem: P, steps: Sequence[str], rng: Random) -> str | None:
        """A step that looks right to one who takes wrong steps at their word: legal in the state
        that they claim, where there is a choice often towards the goal. None where nothing follows.
        """
        ...

    def false_claim(self, problem: P, steps: Sequence[str], rng: Random) -> str | None:
        """A step that says of itself that it reaches the goal, from where the steps claim to be,
        and does not. None where no step can say so, or would not be believed."""
        ...

    def ends_held_out(self, problem: P, steps: Sequence[str]) -> bool:
        """Whether wrong steps end as if in a goal that no training problem has. Training must not
        show them: it never shows that end as right, so it would teach that it always is wrong."""
        ...

    def check(self, problem: P, steps: Sequence[str]) -> Verdict: ...

    def claims_goal(self, problem: P, steps: Sequence[str]) -> bool:
        """Whether the steps say that the goal is reached, legal or not."""
        ...

    def check_step(self, problem: P, prefix: Sequence[str], step: str) -> Reason | None:
        """Why a step is illegal after a legal prefix; None where it is legal."""
        ...

    def can_finish(self, problem: P, steps: Sequence[str]) -> bool:
        """Whether the goal can be reached after these steps; not where one of them is illegal."""
        ...

    def state_key(self, problem: P, steps: Sequence[str]) -> Hashable | None:
        """What is left to solve after some steps: equal keys are one state, whatever the steps that
        led there. None where a step is illegal. A search may merge states of one problem by it."""
        ...

    def picture(self, problem: P, steps: Sequence[str]) -> str | None:
        """The problem in ASCII after as many steps as are legal; None where there is nothing to
        draw."""
        ...
