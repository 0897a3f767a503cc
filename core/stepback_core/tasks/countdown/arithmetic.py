"""The arithmetic of Countdown: states, legal steps, and what can still be reached from where."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from stepback_core.tasks.base import Reason

# ASCII digits without leading zeros; what else int() would take ("٣", "1_0", "+1") is malformed.
_STEP = re.compile(r"(0|[1-9][0-9]{0,9})([-+*/])(0|[1-9][0-9]{0,9})=(0|[1-9][0-9]{0,19})", re.ASCII)

State = tuple[int, ...]
"""The numbers still to be used, sorted ascending."""


def moves(state: State) -> Iterator[tuple[str, State]]:
    """Every distinct legal step from a state and the state it leads to; larger operand first."""
    seen: set[tuple[int, int]] = set()
    for i in range(len(state)):
        for j in range(i + 1, len(state)):
            b, a = state[i], state[j]
            # Equal numbers would give the same step twice.
            if (a, b) in seen:
                continue
            seen.add((a, b))
            rest = state[:i] + state[i + 1 : j] + state[j + 1 :]
            for op, result in results(a, b):
                yield f"{a}{op}{b}={result}", tuple(sorted((*rest, result)))


def results(a: int, b: int) -> Iterator[tuple[str, int]]:
    yield "+", a + b
    # Never negative: b is the smaller one.
    yield "-", a - b
    yield "*", a * b
    if b and a % b == 0:
        yield "/", a // b


# Paths of six numbers meet in the same states again and again.
@lru_cache(maxsize=1 << 16)
def reachable(state: State) -> frozenset[int]:
    """Every value that some full path from a state ends in."""
    if len(state) == 1:
        return frozenset(state)
    if len(state) == 2:
        return frozenset(result for _, result in results(state[1], state[0]))
    return frozenset[int]().union(*(reachable(after) for _, after in moves(state)))


def apply(state: State, step: str) -> State | Reason:
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


def replay(numbers: Sequence[int], steps: Sequence[str]) -> tuple[State, State]:
    """The state after a legal prefix, and every number met on the way there.

    Raises ValueError where the prefix is not legal.
    """
    state: State = tuple(sorted(numbers))
    met = state
    for step in steps:
        after = apply(state, step)
        if isinstance(after, Reason):
            raise ValueError(f"step {step!r} is not legal here: {after}")
        state, met = after, met + after
    return state, met


def believe(numbers: Sequence[int], steps: Sequence[str]) -> State:
    """The numbers that are left for one who takes every step at its word: its result is there, and
    of its operands those are gone that were. What is no equation changes nothing."""
    left = list(numbers)
    for step in steps:
        if match := _STEP.fullmatch(step):
            for operand in (int(match[1]), int(match[3])):
                if operand in left:
                    left.remove(operand)
            left.append(int(match[4]))
    return tuple(sorted(left))
