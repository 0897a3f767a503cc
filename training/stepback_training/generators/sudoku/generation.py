"""Puzzles with one solution: dug out of full grids, and seen from other sides."""

from collections.abc import Iterator
from random import Random
from typing import Literal, Self

from pydantic import Field, model_validator

from stepback_core.tasks.cells import symmetries
from stepback_core.tasks.sudoku.grid import (
    Grid,
    candidates,
    deduce,
    digits_in,
    rows_of,
    side_of,
    solutions,
)
from stepback_training.generators.base import Options

_GIVENS = {4: (4, 10), 9: (30, 50)}
# Fewer leave more than one solution or, of 81, take too long to find; more leave too few puzzles.
_POSSIBLE_GIVENS = {4: (4, 12), 9: (24, 70)}


class SudokuOptions(Options):
    """Distribution of the puzzles of training and tests. Each has exactly one solution."""

    size: Literal[4, 9] = 4
    givens: tuple[int, int] = Field(default_factory=lambda fields: _GIVENS[fields.get("size", 4)])
    """Fewest and most digits given; 4 to 10 of 16, or 30 to 50 of 81, if left out."""
    singles: bool = True
    """Require that naked and hidden singles solve a puzzle, without a guess."""

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        fewest, most = self.givens
        least, greatest = _POSSIBLE_GIVENS[self.size]
        if not least <= fewest <= most <= greatest:
            raise ValueError(f"givens must be two rising numbers of {least} to {greatest}")
        return self


def draw(options: SudokuOptions, rng: Random) -> Grid:
    """A puzzle with a number of givens within the options."""
    fewest, most = options.givens
    while True:
        wanted = rng.randint(fewest, most)
        grid = _dig(_full_grid(options.size, rng), wanted, options.singles, rng)
        if sum(map(bool, grid)) <= most:
            return grid


def variants(grid: Grid, number: int, rng: Random) -> Iterator[Grid]:
    """The same puzzle, turned or reflected, with other digits. All belong to the same split."""
    side = side_of(grid)
    turned = [tuple(map(int, "".join(rows))) for rows in symmetries(rows_of(grid, empty="0"))]
    for _ in range(number):
        digits = (0, *rng.sample(range(1, side + 1), side))
        yield tuple(digits[digit] for digit in rng.choice(turned))


def _full_grid(side: int, rng: Random) -> Grid:
    found = _fill_at_random((0,) * side**2, rng)
    assert found is not None, "an empty grid can be filled"
    return found


def _fill_at_random(grid: Grid, rng: Random) -> Grid | None:
    forced = deduce(grid)
    masks = candidates(forced)
    if not masks:
        return forced
    place = min(masks, key=lambda place: (masks[place].bit_count(), rng.random()))
    digits = digits_in(masks[place])
    for digit in rng.sample(digits, len(digits)):
        found = _fill_at_random((*forced[:place], digit, *forced[place + 1 :]), rng)
        if found is not None:
            return found
    return None


def _dig(solution: Grid, wanted: int, singles: bool, rng: Random) -> Grid:
    """A solution without as many digits as can go, down to the wanted number of givens."""
    grid = list(solution)
    excess = len(grid) - wanted
    for place in rng.sample(range(len(grid)), len(grid)):
        if not excess:
            break
        grid[place] = 0
        if _is_still_solved(tuple(grid), place, solution[place], singles):
            excess -= 1
        else:
            grid[place] = solution[place]
    return tuple(grid)


def _is_still_solved(grid: Grid, place: int, digit: int, singles: bool) -> bool:
    """True if a puzzle is as solvable without the digit at a place as it was with it: the digit
    follows, or no other can stand there."""
    if deduce(grid, place)[place] == digit:
        return True
    if singles:
        return False
    others = (other for other in digits_in(candidates(grid)[place]) if other != digit)
    tried = ((*grid[:place], other, *grid[place + 1 :]) for other in others)
    return all(next(solutions(guess), None) is None for guess in tried)
