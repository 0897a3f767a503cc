"""The order in which a Sudoku is filled: the most constrained cell first."""

from stepback_core.tasks.sudoku.grid import Grid, candidates, fill, side_of, single


def next_place(grid: Grid) -> int:
    """The most constrained empty place: a naked single, else a hidden single, else the one with the
    fewest candidates; the first of several."""
    return _next(candidates(grid), side_of(grid))


def _next(masks: dict[int, int], side: int) -> int:
    found = single(masks, side)
    return found[0] if found else min(masks, key=lambda place: masks[place].bit_count())


def constrained_order(grid: Grid, solution: Grid) -> list[int]:
    """The empty places in the order in which the most constrained one is always filled next."""
    side, masks = side_of(grid), candidates(grid)
    order: list[int] = []
    while masks:
        place = _next(masks, side)
        order.append(place)
        fill(masks, place, 1 << solution[place] >> 1, side)
    return order
