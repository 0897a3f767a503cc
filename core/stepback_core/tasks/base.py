"""What a task is: a problem model, a prompt, reference paths, wrong steps and a checker.

A task is frozen data plus pure functions. It knows nothing of tokens, models or HTTP.
"""

import hashlib
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Protocol, TypeVar

from pydantic import BaseModel


class Reason(StrEnum):
    """Why an answer, or a step, is refused."""

    NOT_REACHED = "not_reached"
    WRONG_ARITHMETIC = "wrong_arithmetic"
    UNAVAILABLE_OPERAND = "unavailable_operand"
    MALFORMED_STEP = "malformed_step"


class ErrorKind(StrEnum):
    """The kinds of wrong step that training data is made of (arXiv 2502.04404)."""

    EXPLORATION = "exploration"
    """A legal step after which the goal can no longer be reached."""
    COMPUTATIONAL = "computational"
    """An equation whose result is wrong."""
    RULE_VIOLATION = "rule_violation"
    """An operand that is not available."""


class Split(StrEnum):
    """Where a problem belongs. The two test kinds share no inputs with training."""

    TRAIN = "train"
    TEST_SEEN = "test_seen"
    """Test inputs, a target that training has seen with other inputs."""
    TEST_NEW = "test_new"
    """Test inputs, a target held out of training altogether."""


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

    def prompt(self, problem: P) -> str:
        """The problem as the model reads it, before framing."""
        ...

    def split(self, problem: P) -> Split | None:
        """The split that a problem belongs to; None where it is kept out of every split."""
        ...

    def stream(self, split: Split, rng: Random) -> Iterator[P]:
        """Solvable problems of a split, without end. Training problems may share their inputs, so
        that the search for reference paths is paid once for several; test problems do not."""
        ...

    def reference_paths(self, problem: P) -> list[list[str]]:
        """Every correct path, as steps, the plainest first; none where there is no solution."""
        ...

    def wrong_step(
        self, problem: P, prefix: Sequence[str], kind: ErrorKind, rng: Random
    ) -> str | None:
        """A wrong step of a kind after a correct prefix; None where there is none of that kind."""
        ...

    def check(self, problem: P, steps: Sequence[str]) -> Verdict: ...

    def check_step(self, problem: P, prefix: Sequence[str], step: str) -> Reason | None:
        """Why a step is illegal after a legal prefix; None where it is legal."""
        ...

    def state_key(self, problem: P, steps: Sequence[str]) -> Hashable | None:
        """What is left to solve after some steps: equal keys are one state, whatever the steps that
        led there. None where a step is illegal. A search may merge states of one problem by it."""
        ...
