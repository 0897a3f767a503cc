"""Wrong steps in a Sudoku, one function for each kind that training data is made of."""

from random import Random

from stepback_core.tasks.cells import cell_name
from stepback_core.tasks.sudoku.grid import (
    Grid,
    candidates,
    digits_in,
    first_solution,
    peers,
    side_of,
)
from stepback_training.generators.sudoku.order import next_place

# Share of the errors in the cell that would be filled next, where a model makes most of them.
_SHARE_NEXT = 0.5
_SHARE_OVERWRITING = 0.3


def exploration_error(grid: Grid, rng: Random) -> str | None:
    """A digit without conflict after which the grid cannot be filled; None if there is none."""
    masks = candidates(grid)
    open_places = [place for place, mask in masks.items() if mask.bit_count() > 1]
    rng.shuffle(open_places)
    if rng.random() < _SHARE_NEXT:
        open_places.sort(key=lambda place: masks[place].bit_count())
    for place in open_places:
        digits = digits_in(masks[place])
        for digit in rng.sample(digits, len(digits)):
            if first_solution((*grid[:place], digit, *grid[place + 1 :])) is None:
                return step_of(grid, place, digit)
    return None


def rule_violation(grid: Grid, rng: Random) -> str | None:
    """A digit that stands in the row, column or box already, or a cell that has one already; None
    in an empty grid."""
    side = side_of(grid)
    filled = [place for place, digit in enumerate(grid) if digit]
    if filled and rng.random() < _SHARE_OVERWRITING:
        return step_of(grid, rng.choice(filled), rng.randint(1, side))
    empty = [place for place, digit in enumerate(grid) if not digit]
    rng.shuffle(empty)
    if empty and rng.random() < _SHARE_NEXT:
        empty.insert(0, next_place(grid))
    for place in empty:
        taken = sorted({grid[other] for other in peers(side)[place]} - {0})
        if taken:
            return step_of(grid, place, rng.choice(taken))
    return step_of(grid, rng.choice(filled), rng.randint(1, side)) if filled else None


def follow_up(grid: Grid, rng: Random) -> str | None:
    """A digit without conflict in a grid with wrong ones, half of the time in the narrowest cell;
    None if no cell takes one."""
    masks = {place: mask for place, mask in candidates(grid).items() if mask}
    if not masks:
        return None
    if rng.random() < _SHARE_NEXT:
        place = min(masks, key=lambda place: masks[place].bit_count())
    else:
        place = rng.choice(list(masks))
    return step_of(grid, place, rng.choice(digits_in(masks[place])))


def step_of(grid: Grid, place: int, digit: int) -> str:
    return f"{cell_name(divmod(place, side_of(grid)))}{digit}"
