"""Every correct path of a Countdown problem, and an order of them."""

from collections.abc import Iterator

from stepback_core.tasks.countdown.arithmetic import State, moves, reachable


def paths(state: State, target: int) -> Iterator[list[str]]:
    if len(state) == 1:
        if state[0] == target:
            yield []
        return
    for step, after in moves(state):
        if target in reachable(after):
            for tail in paths(after, target):
                yield [step, *tail]


Plainness = tuple[int, list[str]]
"""A path's largest result, and the path."""


def plainness(path: list[str]) -> Plainness:
    """Orders paths by their largest result: small numbers are easier to compute with."""
    return max(int(step.rpartition("=")[2]) for step in path), path
