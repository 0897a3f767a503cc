"""Wrong steps in a maze, one function for each kind that training data is made of.

A way is the cells from the start on, the last one where it stands.
"""

from collections.abc import Sequence
from random import Random

from stepback_core.tasks.cells import Cell, cell_name
from stepback_core.tasks.maze.paths import MOVES, Ways, distances, move_between, target

_SHARE_TOWARDS_THE_GOAL = 0.5


def exploration_error(ways: Ways, way: Sequence[Cell], goal: Cell, rng: Random) -> str | None:
    """A step into a branch from which the goal cannot be reached without going back; None if
    there is no such branch."""
    here = way[-1]
    ahead = [cell for cell in ways[here] if cell not in way]
    dead = [cell for cell in ahead if goal not in distances(ways, cell, way)]
    return _step(here, rng.choice(dead)) if dead else None


def computational_error(ways: Ways, way: Sequence[Cell], rng: Random) -> str | None:
    """A good move with a cell that it does not lead to, mostly a near one; None if the way is
    stuck."""
    ahead = [cell for cell in ways[way[-1]] if cell not in way]
    if not ahead:
        return None
    right = rng.choice(ahead)
    near = [cell for cell in ways if cell != right and _distance(cell, right) <= 2]
    wrong = rng.choice(near if rng.random() < 0.8 else [cell for cell in ways if cell != right])
    return move_between(way[-1], right) + cell_name(wrong)


def rule_violation(ways: Ways, way: Sequence[Cell], rng: Random) -> str | None:
    """A move through a wall, or back to where the way has been; None if neither is possible."""
    here = way[-1]
    beyond = [cell for move in MOVES if (cell := target(here, move)) in ways]
    walled = [cell for cell in beyond if cell not in ways[here]]
    visited = [cell for cell in ways[here] if cell in way]
    kinds = [cells for cells in (walled, visited) if cells]
    return _step(here, rng.choice(rng.choice(kinds))) if kinds else None


def follow_up(ways: Ways, way: Sequence[Cell], goal: Cell, rng: Random) -> str | None:
    """A step on from where a wrong way claims to be, half of the time the one nearest to the goal;
    None at the goal, and where there is no way on."""
    here = way[-1]
    ahead = [cell for cell in ways.get(here, ()) if cell not in way]
    if not ahead or here == goal:
        return None
    if rng.random() < _SHARE_TOWARDS_THE_GOAL:
        left = distances(ways, goal)
        return _step(here, min(ahead, key=lambda cell: left.get(cell, len(ways))))
    return _step(here, rng.choice(ahead))


def false_claim(ways: Ways, way: Sequence[Cell], goal: Cell, rng: Random) -> str | None:
    """A move that names the goal as where it leads to, and is none there; None at the goal."""
    here = way[-1]
    if here == goal:
        return None
    is_open = goal in ways.get(here, ())
    wrong = [move for move in MOVES if not (is_open and target(here, move) == goal)]
    return rng.choice(wrong) + cell_name(goal)


def _step(here: Cell, neighbour: Cell) -> str:
    return move_between(here, neighbour) + cell_name(neighbour)


def _distance(one: Cell, other: Cell) -> int:
    return abs(one[0] - other[0]) + abs(one[1] - other[1])
