"""Countdown: combine the numbers with + - * / so that the last result is the target.

    prompt   countdown:4,16,25,82=95
    steps    16-4=12
             25-12=13    (each input is used exactly once, division is exact, nothing is negative)
             82+13=95

The rules are those of Stream of Search (arXiv 2404.03683): inputs 1..99, targets 10..100.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from stepback_core.tasks.base import (
    ErrorKind,
    NoOptions,
    Reason,
    Split,
    Verdict,
    is_test_input,
)
from stepback_core.tasks.countdown.arithmetic import (
    State,
    apply,
    believe,
    paths,
    plainness,
    reachable,
    replay,
)
from stepback_core.tasks.countdown.errors import (
    computational_error,
    ends_in,
    exploration_error,
    false_claim,
    follow_up,
    rule_violation,
)

INPUT_RANGE = range(1, 100)
TARGET_RANGE = range(10, 101)
NEW_TARGETS = frozenset(range(17, 98, 10))
SEEN_TARGETS = tuple(target for target in TARGET_RANGE if target not in NEW_TARGETS)
# Every held-out target ends in 7. A model that reads digits and never met a target that ends in 7
# learns that a last result ending in 7 is wrong, and rejects its own right answers. So training
# draws targets around the range too, where 7 ends some: 7, 107, 117, ... The held-out stay out.
EXTRA_TARGETS = (*range(1, TARGET_RANGE.start), *range(TARGET_RANGE.stop, 200))
_INPUTS_PER_DRAW = 4
_SEEN_TRIED_IN_TRAINING = 41
_EXTRA_TRIED_IN_TRAINING = 20

_LAX_STEP = re.compile(r"([0-9]+)\s*([-+*/])\s*([0-9]+)\s*=\s*([0-9]+)", re.ASCII)


class CountdownProblem(BaseModel):
    """Numbers to combine and the target to reach."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )

    numbers: list[Annotated[int, Field(ge=1, le=99)]] = Field(
        min_length=2, max_length=6, examples=[[4, 16, 25, 82]]
    )
    """Two to six inputs, each 1..99; order is irrelevant."""
    target: int = Field(ge=1, le=199, examples=[95])
    """The last result that is wanted. Test problems have 10..100; training goes a little beyond."""


class Countdown:
    """The Countdown task; see the module for its rules."""

    name = "countdown"
    split_rule = (
        "test inputs: first byte of SHA-256 over the canonical inputs below 26 (about 10 %); "
        "targets 17, 27, ... 97 held out of training altogether (new targets)"
    )
    splits = tuple(Split)
    error_kinds = tuple(ErrorKind)
    problem_type = CountdownProblem
    example = CountdownProblem(numbers=[4, 16, 25, 82], target=95)

    def with_options(self, options: Mapping[str, Any]) -> Self:
        NoOptions.model_validate(options)
        return self

    def prompt(self, problem: CountdownProblem) -> str:
        return f"{self._canonical(problem.numbers)}={problem.target}"

    def split(self, problem: CountdownProblem) -> Split | None:
        target = problem.target
        if is_test_input(self._canonical(problem.numbers)):
            kinds = ((Split.TEST_NEW, NEW_TARGETS), (Split.TEST_SEEN, SEEN_TARGETS))
            return next((kind for kind, targets in kinds if target in targets), None)
        return None if target in NEW_TARGETS else Split.TRAIN

    def stream(self, split: Split, rng: Random) -> Iterator[CountdownProblem]:
        """Four inputs each. Test problems are uniform over the solvable (inputs, target) pairs of
        their kind; training problems have targets around the range beside."""
        while True:
            numbers = self._draw_inputs(rng, test=split is not Split.TRAIN)
            for target in _draw_targets(split, rng):
                if target in reachable(numbers):
                    yield CountdownProblem(numbers=list(numbers), target=target)

    def _draw_inputs(self, rng: Random, *, test: bool) -> State:
        """Four inputs from the test or the training side of the split."""
        while True:
            numbers = tuple(sorted(rng.choice(INPUT_RANGE) for _ in range(_INPUTS_PER_DRAW)))
            if is_test_input(self._canonical(numbers)) == test:
                return numbers

    def reference_paths(self, problem: CountdownProblem) -> list[list[str]]:
        return sorted(paths(tuple(sorted(problem.numbers)), problem.target), key=plainness)

    def wrong_step(
        self, problem: CountdownProblem, prefix: Sequence[str], kind: ErrorKind, rng: Random
    ) -> str | None:
        state, met = replay(problem.numbers, prefix)
        if kind is ErrorKind.EXPLORATION:
            return exploration_error(state, problem.target, NEW_TARGETS, rng)
        if kind is ErrorKind.COMPUTATIONAL:
            return computational_error(state, NEW_TARGETS, rng)
        return rule_violation(state, met, NEW_TARGETS, rng)

    def follow_up(self, problem: CountdownProblem, steps: Sequence[str], rng: Random) -> str | None:
        state = believe(problem.numbers, steps)
        return follow_up(state, problem.target, NEW_TARGETS, rng)

    def false_claim(
        self, problem: CountdownProblem, steps: Sequence[str], rng: Random
    ) -> str | None:
        state = believe(problem.numbers, steps)
        return false_claim(state, problem.target, NEW_TARGETS, rng)

    def ends_held_out(self, problem: CountdownProblem, steps: Sequence[str]) -> bool:
        return ends_in(NEW_TARGETS, believe(problem.numbers, steps[:-1]), steps[-1])

    def check(self, problem: CountdownProblem, steps: Sequence[str]) -> Verdict:
        reason = _refusal(problem, steps)
        return Verdict(reason is None, _lax(problem, steps), reason)

    def claims_goal(self, problem: CountdownProblem, steps: Sequence[str]) -> bool:
        """The last equation says that it makes the target."""
        return bool(steps) and steps[-1].rpartition("=")[2] == str(problem.target)

    def check_step(
        self, problem: CountdownProblem, prefix: Sequence[str], step: str
    ) -> Reason | None:
        after = apply(replay(problem.numbers, prefix)[0], step)
        return after if isinstance(after, Reason) else None

    def can_finish(self, problem: CountdownProblem, steps: Sequence[str]) -> bool:
        state = _follow(problem, steps)
        return not isinstance(state, Reason) and problem.target in reachable(state)

    def state_key(self, problem: CountdownProblem, steps: Sequence[str]) -> State | None:
        """The numbers still to be used, sorted."""
        state = _follow(problem, steps)
        return None if isinstance(state, Reason) else state

    def picture(self, problem: CountdownProblem, steps: Sequence[str]) -> None:
        """Equations say it all."""

    def _canonical(self, numbers: Sequence[int]) -> str:
        return f"{self.name}:{','.join(map(str, sorted(numbers)))}"


def _draw_targets(split: Split, rng: Random) -> list[int]:
    if split is Split.TRAIN:
        seen = rng.sample(SEEN_TARGETS, _SEEN_TRIED_IN_TRAINING)
        return seen + rng.sample(EXTRA_TARGETS, _EXTRA_TRIED_IN_TRAINING)
    return [rng.choice(sorted(NEW_TARGETS) if split is Split.TEST_NEW else SEEN_TARGETS)]


def _follow(problem: CountdownProblem, steps: Sequence[str]) -> State | Reason:
    """The state after the steps, or why one of them is illegal."""
    state: State = tuple(sorted(problem.numbers))
    for step in steps:
        after = apply(state, step)
        if isinstance(after, Reason):
            return after
        state = after
    return state


def _refusal(problem: CountdownProblem, steps: Sequence[str]) -> Reason | None:
    """Why the strict rules refuse an answer; None where they accept it."""
    state = _follow(problem, steps)
    if isinstance(state, Reason):
        return state
    return None if state == (problem.target,) else Reason.NOT_REACHED


def _lax(problem: CountdownProblem, steps: Sequence[str]) -> bool:
    """The verdict of the paper's published checker, for comparison with its numbers.

    It floors division, lets inputs go unused, drops every copy of a used number, and ignores what
    follows the result in a step.
    """
    left = list(problem.numbers)
    last: int | None = None
    for step in steps:
        match = _LAX_STEP.match(step)
        if match is None or max(map(len, match.groups())) > 20:
            return False
        a, op, b, result = int(match[1]), match[2], int(match[3]), int(match[4])
        if a not in left or b not in left or (op == "/" and b == 0):
            return False
        last = a // b if op == "/" else {"+": a + b, "-": a - b, "*": a * b}[op]
        if last != result:
            return False
        left = [number for number in left if number not in (a, b)] + [result]
    return last == problem.target
