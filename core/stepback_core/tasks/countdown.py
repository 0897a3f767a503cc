"""Countdown: combine the numbers with + - * / so that the last result is the target.

    prompt   countdown:3,5,7,20=41
    steps    20+7=27
             5*3=15      (each input is used exactly once, division is exact, nothing is negative)
             27+15=42    <- not the target: a wrong step

The rules are those of Stream of Search (arXiv 2404.03683): inputs 1..99, targets 10..100.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from random import Random
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from stepback_core.tasks.base import ErrorKind, Reason, Split, Verdict, is_test_input

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
_SHARE_OF_FLOORED_DIVISIONS = 0.2

# ASCII digits without leading zeros; what else int() would take ("٣", "1_0", "+1") is malformed.
_STEP = re.compile(r"(0|[1-9][0-9]{0,9})([-+*/])(0|[1-9][0-9]{0,9})=(0|[1-9][0-9]{0,19})", re.ASCII)
_LAX_STEP = re.compile(r"([0-9]+)\s*([-+*/])\s*([0-9]+)\s*=\s*([0-9]+)", re.ASCII)

State = tuple[int, ...]
"""The numbers still to be used, sorted ascending."""


class CountdownProblem(BaseModel):
    """Numbers to combine and the target to reach."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    numbers: list[Annotated[int, Field(ge=1, le=99)]] = Field(
        min_length=2, max_length=6, examples=[[3, 5, 7, 20]]
    )
    """Two to six inputs, each 1..99; order is irrelevant."""
    target: int = Field(ge=1, le=199, examples=[41])
    """Test problems have 10..100; training goes a little beyond."""


class Countdown:
    """The Countdown task; see the module for its rules."""

    name = "countdown"
    problem_type = CountdownProblem

    def prompt(self, problem: CountdownProblem) -> str:
        return f"{self._canonical(problem.numbers)}={problem.target}"

    def split(self, problem: CountdownProblem) -> Split | None:
        new_target = problem.target in NEW_TARGETS
        if is_test_input(self._canonical(problem.numbers)):
            return Split.TEST_NEW if new_target else Split.TEST_SEEN
        return None if new_target else Split.TRAIN

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
        return sorted(_paths(tuple(sorted(problem.numbers)), problem.target), key=_plainness)

    def wrong_step(
        self, problem: CountdownProblem, prefix: Sequence[str], kind: ErrorKind, rng: Random
    ) -> str | None:
        state, path = _replay(problem.numbers, prefix)
        if kind is ErrorKind.EXPLORATION:
            return _exploration_error(state, problem.target, rng)
        if kind is ErrorKind.COMPUTATIONAL:
            return _draw_unless_new(state, lambda: _computational_error(state, rng))
        return _draw_unless_new(state, lambda: _rule_violation(state, path, rng))

    def check(self, problem: CountdownProblem, steps: Sequence[str]) -> Verdict:
        reason, detail = _strict(problem, steps)
        return Verdict(reason is None, _lax(problem, steps), reason, detail)

    def check_step(
        self, problem: CountdownProblem, prefix: Sequence[str], step: str
    ) -> Reason | None:
        after = _apply(_replay(problem.numbers, prefix)[0], step)
        return after if isinstance(after, Reason) else None

    def _canonical(self, numbers: Sequence[int]) -> str:
        return f"{self.name}:{','.join(map(str, sorted(numbers)))}"


def _draw_targets(split: Split, rng: Random) -> list[int]:
    if split is Split.TRAIN:
        seen = rng.sample(SEEN_TARGETS, _SEEN_TRIED_IN_TRAINING)
        return seen + rng.sample(EXTRA_TARGETS, _EXTRA_TRIED_IN_TRAINING)
    return [rng.choice(sorted(NEW_TARGETS) if split is Split.TEST_NEW else SEEN_TARGETS)]


def moves(state: State) -> Iterator[tuple[str, State]]:
    """Every distinct legal step from a state and the state it leads to; larger operand first."""
    seen: set[tuple[int, int]] = set()
    for i in range(len(state)):
        for j in range(i + 1, len(state)):
            b, a = state[i], state[j]
            if (a, b) in seen:
                continue
            seen.add((a, b))
            rest = state[:i] + state[i + 1 : j] + state[j + 1 :]
            for op, result in _results(a, b):
                yield f"{a}{op}{b}={result}", tuple(sorted((*rest, result)))


def _results(a: int, b: int) -> Iterator[tuple[str, int]]:
    yield "+", a + b
    yield "-", a - b
    yield "*", a * b
    if b and a % b == 0:
        yield "/", a // b


@lru_cache(maxsize=1 << 16)
def reachable(state: State) -> frozenset[int]:
    """Every value that some full path from a state ends in."""
    if len(state) == 1:
        return frozenset(state)
    if len(state) == 2:
        return frozenset(result for _, result in _results(state[1], state[0]))
    return frozenset[int]().union(*(reachable(after) for _, after in moves(state)))


def _paths(state: State, target: int) -> Iterator[list[str]]:
    if len(state) == 1:
        if state[0] == target:
            yield []
        return
    for step, after in moves(state):
        if target in reachable(after):
            for tail in _paths(after, target):
                yield [step, *tail]


def _plainness(path: list[str]) -> tuple[int, list[str]]:
    """Orders paths by their largest result: small numbers are easier to compute with."""
    return max(int(step.rpartition("=")[2]) for step in path), path


def _apply(state: State, step: str) -> State | Reason:
    """The state after a step, or why the step is illegal."""
    match = _STEP.fullmatch(step)
    if match is None:
        return Reason.MALFORMED_STEP
    a, op, b, result = int(match[1]), match[2], int(match[3]), int(match[4])
    left = list(state)
    for operand in (a, b):
        if operand not in left:
            return Reason.UNAVAILABLE_OPERAND
        left.remove(operand)
    if not _is_exact(a, op, b, result):
        return Reason.WRONG_ARITHMETIC
    return tuple(sorted((*left, result)))


def _is_exact(a: int, op: str, b: int, result: int) -> bool:
    if op == "/":
        return b != 0 and a % b == 0 and a // b == result
    return {"+": a + b, "-": a - b, "*": a * b}[op] == result


def _replay(numbers: Sequence[int], steps: Sequence[str]) -> tuple[State, State]:
    """The state after a legal prefix, and every number met on the way there.

    Raises ValueError where the prefix is not legal.
    """
    state: State = tuple(sorted(numbers))
    met = state
    for step in steps:
        after = _apply(state, step)
        if isinstance(after, Reason):
            raise ValueError(f"step {step!r} is not legal here: {after}")
        state, met = after, met + after
    return state, met


def _strict(problem: CountdownProblem, steps: Sequence[str]) -> tuple[Reason | None, str]:
    state: State = tuple(sorted(problem.numbers))
    for step in steps:
        after = _apply(state, step)
        if isinstance(after, Reason):
            return after, f"step {step!r}"
        state = after
    if len(state) > 1:
        return Reason.NOT_REACHED, f"numbers left over: {', '.join(map(str, state))}"
    if state != (problem.target,):
        return Reason.NOT_REACHED, f"ends in {state}, not in {problem.target}"
    return None, ""


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


def _exploration_error(state: State, target: int, rng: Random) -> str | None:
    dead = [
        step
        for step, after in moves(state)
        if target not in reachable(after) and not _ends_in_new_target(state, step)
    ]
    return rng.choice(dead) if dead else None


def _ends_in_new_target(state: State, step: str) -> bool:
    """Whether a step ends the path in a held-out target. As a wrong step it would teach that such
    an end is always wrong, since training never shows it right."""
    return len(state) == 2 and int(step.rpartition("=")[2]) in NEW_TARGETS


def _draw_unless_new(state: State, draw: Callable[[], str]) -> str:
    while _ends_in_new_target(state, step := draw()):
        pass
    return step


def _computational_error(state: State, rng: Random) -> str:
    a, b = sorted(rng.sample(state, 2), reverse=True)
    if b and a % b and rng.random() < _SHARE_OF_FLOORED_DIVISIONS:
        return f"{a}/{b}={a // b}"
    step, _ = rng.choice(list(moves(state)))
    equation, _, right = step.partition("=")
    result = int(right)
    while True:
        # Mostly near misses, as a model makes them; now and then a digit elsewhere.
        scale = rng.choice((1, 1, 1, 10, 10, 100))
        wrong = result + scale * rng.choice((-3, -2, -1, 1, 2, 3))
        if wrong >= 0:
            return f"{equation}={wrong}"


def _rule_violation(state: State, met: State, rng: Random) -> str:
    """A step with a number that is not there: used already, or never there."""
    while True:
        stranger = rng.choice(met) if rng.random() < 0.5 else rng.choice(INPUT_RANGE)
        own = rng.choice(state)
        a, b = max(stranger, own), min(stranger, own)
        if _is_available(state, (a, b)):
            continue
        op, result = rng.choice(list(_results(a, b)))
        return f"{a}{op}{b}={result}"


def _is_available(state: State, operands: tuple[int, int]) -> bool:
    return all(state.count(operand) >= operands.count(operand) for operand in operands)
