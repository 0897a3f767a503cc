"""Sudoku, 4x4 or 9x9: fill the grid so that no digit is twice in a row, a column or a box.

. 1 | . .
4 . | . 1     prompt   sudoku:A.1..B4..1C.32.D....
----+----     steps    Bb2    (row B, column b gets a 2)
. 3 | 2 .              Aa3
. . | . .              ...
"""

import re
from collections.abc import Sequence
from math import isqrt

from stepback_core.tasks.base import Checker, Reason, Verdict
from stepback_core.tasks.cells import cell_name, labelled, parse_cell
from stepback_core.tasks.sudoku.grid import (
    Grid,
    conflicts,
    first_solution,
    rows_of,
    side_of,
    units,
)
from stepback_core.tasks.sudoku.problem import SudokuProblem

# Of the largest grid; _read refuses what a smaller one has not.
_STEP = re.compile(r"[A-I][a-i][1-9]", re.ASCII)


class Sudoku(Checker[SudokuProblem]):
    """The Sudoku task; see the module for its rules."""

    name = "sudoku"
    problem_type = SudokuProblem
    example = SudokuProblem(rows=[".1..", "4..1", ".32.", "...."])

    def prompt(self, problem: SudokuProblem) -> str:
        return f"{self.name}:{labelled(rows_of(problem.grid))}"

    def check(self, problem: SudokuProblem, steps: Sequence[str]) -> Verdict:
        """Lax lets a step write over an earlier one, and looks at the last grid alone."""
        grid = _follow(problem.grid, steps)
        lax = _is_solved(overwrite(problem.grid, steps))
        if isinstance(grid, Reason):
            return Verdict(False, lax, grid)
        is_full = 0 not in grid
        # Every step was legal, so a full grid is a right one.
        return Verdict(is_full, lax, None if is_full else Reason.NOT_REACHED)

    def claims_goal(self, problem: SudokuProblem, steps: Sequence[str]) -> bool:
        """The steps have a digit for every empty cell."""
        return 0 not in overwrite(problem.grid, steps)

    def check_step(self, problem: SudokuProblem, prefix: Sequence[str], step: str) -> Reason | None:
        after = _enter(replay(problem.grid, prefix), step)
        return after if isinstance(after, Reason) else None

    def can_finish(self, problem: SudokuProblem, steps: Sequence[str]) -> bool:
        grid = _follow(problem.grid, steps)
        return not isinstance(grid, Reason) and first_solution(grid) is not None

    def shortest_answer(self, problem: SudokuProblem) -> list[str]:
        """Every empty cell takes a step, whatever its digit."""
        side = side_of(problem.grid)
        empty = (place for place, digit in enumerate(problem.grid) if not digit)
        return [f"{cell_name(divmod(place, side))}1" for place in empty]

    def state_key(self, problem: SudokuProblem, steps: Sequence[str]) -> Grid | None:
        """The grid, in whatever order it was filled."""
        grid = _follow(problem.grid, steps)
        return None if isinstance(grid, Reason) else grid

    def picture(self, problem: SudokuProblem, steps: Sequence[str]) -> str:
        """The grid with lines between its boxes, `.` for what is empty."""
        grid = problem.grid
        for step in steps:
            after = _enter(grid, step)
            if isinstance(after, Reason):
                break
            grid = after
        box = isqrt(side_of(grid))
        lines = [" | ".join(" ".join(part) for part in _parts(row, box)) for row in rows_of(grid)]
        rule = "-+-".join(["-" * (2 * box - 1)] * box)
        return f"\n{rule}\n".join("\n".join(part) for part in _parts(lines, box))


def _parts(items: Sequence[str], size: int) -> list[Sequence[str]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _read(grid: Grid, step: str) -> tuple[int, int] | None:
    """The place and the digit of a step; None if it is malformed or not of this grid."""
    side = side_of(grid)
    if _STEP.fullmatch(step) is None:
        return None
    (row, column), digit = parse_cell(step[:2]), int(step[2])
    return (side * row + column, digit) if max(row + 1, column + 1, digit) <= side else None


def _enter(grid: Grid, step: str) -> Grid | Reason:
    """The grid after a step, or why it is illegal."""
    read = _read(grid, step)
    if read is None:
        return Reason.MALFORMED_STEP
    place, digit = read
    if grid[place]:
        return Reason.OCCUPIED
    if conflicts(grid, place, digit):
        return Reason.CONFLICT
    return (*grid[:place], digit, *grid[place + 1 :])


def _follow(grid: Grid, steps: Sequence[str]) -> Grid | Reason:
    """The grid after the steps, or why one of them is illegal."""
    for step in steps:
        after = _enter(grid, step)
        if isinstance(after, Reason):
            return after
        grid = after
    return grid


def replay(grid: Grid, steps: Sequence[str]) -> Grid:
    """The grid after a legal prefix. Raises ValueError where it is not legal."""
    after = _follow(grid, steps)
    if isinstance(after, Reason):
        raise ValueError(f"the prefix {list(steps)} is not legal: {after}")
    return after


def overwrite(givens: Grid, steps: Sequence[str]) -> Grid:
    """The grid after steps that may write over each other, though never over a given."""
    grid = list(givens)
    for step in steps:
        read = _read(givens, step)
        if read is not None and not givens[read[0]]:
            grid[read[0]] = read[1]
    return tuple(grid)


def _is_solved(grid: Grid) -> bool:
    side = side_of(grid)
    return all(len({grid[place] for place in unit} - {0}) == side for unit in units(side))
