"""Maze: walk from S to G, cell by cell, without entering a cell twice.

#########
#...#...#     prompt   maze:Ca-Bb:A2c6cB4395C7869D3ab8
###.#.#.#     steps    vDa    (a move, and the cell that it leads to: row D, column a)
#.#G..#.#              >Db
#.#####.#              >Dc
#S..#...#              ^Cc
#.###.###              ...
#.......#              <Bb
#########     A dead end: >Cb from the start is legal, and leads nowhere.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

from stepback_core.tasks.base import Checker, Reason, Verdict
from stepback_core.tasks.cells import Cell, cell_name, labelled, parse_cell
from stepback_core.tasks.maze.paths import (
    GOAL,
    MOVES,
    OPEN,
    START,
    Ways,
    distances,
    find,
    move_between,
    read_ways,
    target,
)
from stepback_core.tasks.maze.problem import EXAMPLE, MazeProblem

STEP = re.compile(r"[\^>v<][A-Z][a-z]", re.ASCII)
_WAY = "o"


class Maze(Checker[MazeProblem]):
    """The maze task; see the module for its rules."""

    name = "maze"
    problem_type = MazeProblem
    example = MazeProblem(rows=EXAMPLE)

    def prompt(self, problem: MazeProblem) -> str:
        """Start, goal, and of each cell, as one hexadecimal digit, the sides that are open: the sum
        of 1 up, 2 right, 4 down and 8 left."""
        rows = problem.rows
        ends = f"{cell_name(find(rows, START))}-{cell_name(find(rows, GOAL))}"
        return f"{self.name}:{ends}:{labelled(_open_sides(read_ways(rows), rows))}"

    def check(self, problem: MazeProblem, steps: Sequence[str]) -> Verdict:
        """Lax lets a way come back to where it has been."""
        rows, goal = problem.rows, find(problem.rows, GOAL)
        ways = read_ways(rows)
        way, reason = _walk(ways, rows, steps)
        # A walk of its own: the strict one ends at the first return.
        lax_way, lax_reason = _walk(ways, rows, steps, may_return=True)
        if reason is None and way[-1] != goal:
            reason = Reason.NOT_REACHED
        return Verdict(reason is None, lax_reason is None and lax_way[-1] == goal, reason)

    def claims_goal(self, problem: MazeProblem, steps: Sequence[str]) -> bool:
        """The last move says that it leads to the goal."""
        return bool(steps) and steps[-1][1:] == cell_name(find(problem.rows, GOAL))

    def check_step(self, problem: MazeProblem, prefix: Sequence[str], step: str) -> Reason | None:
        after = _enter(*replay(problem.rows, prefix), step)
        return after if isinstance(after, Reason) else None

    def can_finish(self, problem: MazeProblem, steps: Sequence[str]) -> bool:
        ways, goal = read_ways(problem.rows), find(problem.rows, GOAL)
        way, reason = _walk(ways, problem.rows, steps)
        return reason is None and goal in distances(ways, way[-1], way[:-1])

    def shortest_answer(self, problem: MazeProblem) -> list[str]:
        """The moves of a shortest way; none where the goal cannot be reached."""
        ways, goal = read_ways(problem.rows), find(problem.rows, GOAL)
        far = distances(ways, goal)
        way = [find(problem.rows, START)]
        while way[-1] != goal and way[-1] in far:
            way.append(min(ways[way[-1]], key=lambda cell: far[cell]))
        return [move_between(a, b) + cell_name(b) for a, b in pairwise(way)]

    def state_key(self, problem: MazeProblem, steps: Sequence[str]) -> Cell | None:
        """Return the last cell alone."""
        # The way there does not matter to a search: if the goal is closed to one way into a cell
        # and open to another, the first has already passed a cell from which it is open.
        way, reason = _walk(read_ways(problem.rows), problem.rows, steps)
        return way[-1] if reason is None else None

    def picture(self, problem: MazeProblem, steps: Sequence[str]) -> str:
        """The drawing, with the way as `o`."""
        drawing = [list(row.replace(OPEN, " ")) for row in problem.rows]
        way, _ = _walk(read_ways(problem.rows), problem.rows, steps)
        for cell, after in pairwise(way):
            drawing[cell[0] + after[0] + 1][cell[1] + after[1] + 1] = _WAY
            # Start and goal keep their letters.
            if drawing[2 * after[0] + 1][2 * after[1] + 1] == " ":
                drawing[2 * after[0] + 1][2 * after[1] + 1] = _WAY
        return "\n".join(map("".join, drawing))


def _open_sides(ways: Ways, rows: Sequence[str]) -> list[str]:
    sides = {
        cell: sum(1 << bit for bit, move in enumerate(MOVES) if target(cell, move) in ways[cell])
        for cell in ways
    }
    height, width = len(rows) // 2, len(rows[0]) // 2
    return ["".join(f"{sides[row, column]:x}" for column in range(width)) for row in range(height)]


def _enter(
    ways: Ways, way: Sequence[Cell], step: str, *, may_return: bool = False
) -> Cell | Reason:
    """The cell that a step leads to, or why it is illegal."""
    if STEP.fullmatch(step) is None:
        return Reason.MALFORMED_STEP
    cell = target(way[-1], step[0])
    # Before the wall: a step that contradicts itself says nothing of the maze.
    if cell != parse_cell(step[1:]):
        return Reason.WRONG_CELL
    if cell not in ways[way[-1]]:
        return Reason.WALL
    return Reason.REVISITED if cell in way and not may_return else cell


def _walk(
    ways: Ways, rows: Sequence[str], steps: Sequence[str], *, may_return: bool = False
) -> tuple[list[Cell], Reason | None]:
    """The way from the start on as far as the steps are legal, and why it ends before the last."""
    way = [find(rows, START)]
    for step in steps:
        cell = _enter(ways, way, step, may_return=may_return)
        if isinstance(cell, Reason):
            return way, cell
        way.append(cell)
    return way, None


def replay(rows: Sequence[str], steps: Sequence[str]) -> tuple[Ways, list[Cell]]:
    """The ways of a maze and the way of a legal prefix. Raises ValueError where it is not legal."""
    ways = read_ways(rows)
    way, reason = _walk(ways, rows, steps)
    if reason is not None:
        raise ValueError(f"the prefix {list(steps)} is not legal: {reason}")
    return ways, way
