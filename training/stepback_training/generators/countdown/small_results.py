"""Paths of Countdown with small results: a fraction of all paths, and mostly enough of them.

The tree of six numbers has some 350,000 states. Few of their results are small, and what small
results reach is found in milliseconds.
"""

from collections.abc import Iterator
from functools import lru_cache

from stepback_core.tasks.countdown.arithmetic import State, moves, reachable
from stepback_training.generators.countdown.paths import Plainness

LIMIT = 120
"""The largest result that a path may have."""


@lru_cache(maxsize=1 << 17)
def reachable_within(state: State) -> frozenset[int]:
    """Every value that some full path with results up to the limit ends in."""
    if len(state) == 1:
        return frozenset(state)
    return frozenset[int]().union(*(reachable_within(after) for _, _, after in _moves(state)))


def can_reach(state: State, target: int) -> bool:
    """Tell if some full path from a state ends in the target."""
    return target in reachable_within(state) or target in reachable(state)


def plainest(state: State, target: int) -> list[str] | None:
    """Return the plainest path; None if every path to the target has a result over the limit."""
    if target not in reachable_within(state):
        return None
    return _plainest(state, target, {})[1]


def _plainest(state: State, target: int, known: dict[State, Plainness]) -> Plainness:
    """The plainest path from a state that reaches the target within the limit."""
    if len(state) == 1:
        return 0, []
    if state not in known:
        known[state] = min(_extended(state, target, known))
    return known[state]


def _extended(state: State, target: int, known: dict[State, Plainness]) -> Iterator[Plainness]:
    largest = LIMIT
    for result, step, after in sorted(_moves(state)):
        if result <= largest and target in reachable_within(after):
            rest, path = _plainest(after, target, known)
            largest = min(largest, max(result, rest))
            yield max(result, rest), [step, *path]


def _moves(state: State) -> Iterator[tuple[int, str, State]]:
    """The legal steps with a result up to the limit: that result, the step, and the state after."""
    for step, after in moves(state):
        result = int(step.rpartition("=")[2])
        if result <= LIMIT:
            yield result, step, after
