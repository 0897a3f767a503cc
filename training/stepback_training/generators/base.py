"""The interface of a generator: the problems, reference paths and wrong steps of training data."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from random import Random
from typing import Any, Generic, Self, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from stepback_core.tasks import Checker
from stepback_core.validation import in_other_words

_TRIES = 16


class ErrorKind(StrEnum):
    """The kinds of wrong step that training data is made of (arXiv 2502.04404)."""

    EXPLORATION = "exploration"
    """A legal step after which the goal can no longer be reached."""
    COMPUTATIONAL = "computational"
    """A step that is computed wrongly: an equation's result, the cell that a move leads to, a
    role that contradicts a statement."""
    RULE_VIOLATION = "rule_violation"
    """A step that the rules forbid: an operand that is not available, a move through a wall."""


class Split(StrEnum):
    """Split of a problem. The two test kinds share no inputs with training."""

    TRAIN = "train"
    TEST_SEEN = "test_seen"
    """Test inputs; where the task has targets, one that training has seen with other inputs."""
    TEST_NEW = "test_new"
    """Test inputs, a target held out of training altogether; only where the task has targets."""


def is_test_input(canonical: str) -> bool:
    """Tell if canonical inputs are test inputs: first byte of SHA-256 below 26 (10 %)."""
    return hashlib.sha256(canonical.encode()).digest()[0] < 26


class Options(BaseModel):
    """How a generator draws: the `options` of a recipe. What it does not have is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def model_validate(cls, obj: Any, **how: Any) -> Self:
        """Validate; errors are in a recipe's words where pydantic has its own."""
        try:
            return super().model_validate(obj, **how)
        except ValidationError as error:
            raise in_other_words(error, cls._reworded) from error

    @classmethod
    def _reworded(cls, kind: str, path: tuple[int | str, ...]) -> str | None:
        if kind == "extra_forbidden":
            known = ", ".join(cls.model_fields) or "none"
            return f"no such option; the task's options are: {known}"
        field = cls.model_fields.get(str(path[0])) if path else None
        if kind not in {"tuple_type", "missing", "too_long"} or field is None:
            return None
        entries = get_args(field.annotation)
        if get_origin(field.annotation) is not tuple or Ellipsis in entries:
            return None
        return f"it is a list of {len(entries)} values"


class NoOptions(Options):
    """The options of a task whose generator has none."""


P = TypeVar("P", bound=BaseModel)


class Generator(ABC, Generic[P]):
    """The training data of one task. `P` is its problem model.

    A generator needs its `checker`, `draw` (or `stream`) and `reference_paths`; the rest has
    defaults that know the task through its checker alone.
    """

    checker: Checker[P]
    split_rule: str = "test problems: first byte of SHA-256 over the prompt below 26 (about 10 %)"
    """The data split in words, for model cards."""
    splits: tuple[Split, ...] = (Split.TRAIN, Split.TEST_SEEN)
    """The splits that the task has problems for."""
    error_kinds: tuple[ErrorKind, ...] = (ErrorKind.RULE_VIOLATION,)
    """The kinds of wrong step that `wrong_step` can make."""

    @property
    def name(self) -> str:
        return self.checker.name

    @abstractmethod
    def reference_paths(self, problem: P) -> list[list[str]]:
        """Return correct paths, as steps, the plainest first; an empty list without a solution.

        All of them, or the plainest if they are beyond counting.
        """

    def draw(self, rng: Random) -> P:
        """Return a solvable problem of any split; needed unless `stream` is overridden."""
        raise NotImplementedError(f"{type(self).__name__} needs draw or stream")

    def with_options(self, options: Mapping[str, Any]) -> Self:
        """Return this generator, drawing as a recipe's options say; the rules stay.

        Raises pydantic's ValidationError for options that it does not have."""
        NoOptions.model_validate(options)
        return self

    def split(self, problem: P) -> Split | None:
        """Return the split of a problem; None if it is kept out of every split."""
        return Split.TEST_SEEN if is_test_input(self.checker.prompt(problem)) else Split.TRAIN

    def stream(self, split: Split, rng: Random) -> Iterator[P]:
        """Solvable problems of a split, without end.

        Raises ValueError for a split that the task does not have."""
        # Training problems may share their inputs, so that the search for reference paths is paid
        # once for several; test problems do not.
        if split not in self.splits:
            raise ValueError(f"{self.name} has no {split} problems")
        while True:
            problem = self.draw(rng)
            if self.split(problem) is split:
                yield problem

    def wrong_step(
        self, problem: P, prefix: Sequence[str], kind: ErrorKind, rng: Random
    ) -> str | None:
        """Return a wrong step of a kind after a correct prefix; None if there is none.

        By default a step of another place or problem that the checker refuses here: by
        `check_step`, or as part of the whole answer.
        """
        if kind is not ErrorKind.RULE_VIOLATION:
            return None
        paths = self.reference_paths(problem)
        path = next((path for path in paths if path[: len(prefix)] == list(prefix)), paths[0])
        for _ in range(_TRIES):
            step = rng.choice(self._steps_from_elsewhere(path, rng))
            if step not in path[len(prefix) : len(prefix) + 1] and self._is_refused(
                problem, prefix, step, path[len(prefix) + 1 :]
            ):
                return step
        return None

    def _steps_from_elsewhere(self, path: Sequence[str], rng: Random) -> Sequence[str]:
        if len(path) > 1 and rng.random() < 0.5:
            return path
        return self.reference_paths(next(self.stream(Split.TRAIN, rng)))[0]

    def _is_refused(
        self, problem: P, prefix: Sequence[str], step: str, rest: Sequence[str]
    ) -> bool:
        if self.checker.check_step(problem, prefix, step) is not None:
            return True
        steps = [*prefix, step]
        if not self.checker.can_finish(problem, steps):
            return True
        if type(self.checker).check_step is not Checker.check_step:
            return False
        answers = (steps, [*steps, *rest])
        return not any(self.checker.check(problem, answer).strict for answer in answers)

    def follow_up(self, problem: P, steps: Sequence[str], rng: Random) -> str | None:
        """Return a step that looks right after wrong steps; None if nothing follows.

        Legal in the state that the steps claim, and if there is a choice often towards the goal.
        """
        return None

    def false_claim(self, problem: P, steps: Sequence[str], rng: Random) -> str | None:
        """Return a step that claims to reach the goal from the claimed state, and does not.

        None if no step can say so, or would not be believed.
        """
        return None

    def ends_held_out(self, problem: P, steps: Sequence[str]) -> bool:
        """Tell if wrong steps end as if in a goal that no training problem has.

        Training must not show them: it never shows that end as right, so it would teach that it
        always is wrong.
        """
        return False
