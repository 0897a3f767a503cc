"""The grid of a Sudoku: what may stand where, what follows, and every way to fill it.

A grid is its digits row by row, 0 where none is; its side is 4 or 9. Sets of digits are bit masks:
bit d - 1 stands for digit d.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import isqrt

Grid = tuple[int, ...]
"""Digits row by row: 16 or 81 of them."""


def side_of(grid: Sequence[int]) -> int:
    return isqrt(len(grid))


def rows_of(grid: Grid, empty: str = ".") -> list[str]:
    side = side_of(grid)
    text = "".join(map(str, grid)).replace("0", empty)
    return [text[start : start + side] for start in range(0, side * side, side)]


@lru_cache
def units(side: int) -> tuple[tuple[int, ...], ...]:
    """The rows, columns and boxes, each as the places of its cells."""
    box, all_of = isqrt(side), range(side)
    rows = [tuple(side * row + column for column in all_of) for row in all_of]
    columns = list(zip(*rows, strict=True))
    boxes = [
        tuple(side * (top + row) + left + column for row in range(box) for column in range(box))
        for top in range(0, side, box)
        for left in range(0, side, box)
    ]
    return (*rows, *columns, *boxes)


@lru_cache
def peers(side: int) -> tuple[tuple[int, ...], ...]:
    """The places that share a row, a column or a box with each place."""
    return tuple(
        tuple(sorted({other for unit in units(side) if place in unit for other in unit} - {place}))
        for place in range(side * side)
    )


def digits_in(mask: int) -> list[int]:
    return [bit + 1 for bit in range(mask.bit_length()) if mask >> bit & 1]


def conflicts(grid: Sequence[int], place: int, digit: int) -> bool:
    """Tell whether a digit stands already in the row, column or box of a place."""
    return any(grid[other] == digit for other in peers(side_of(grid))[place])


def candidates(grid: Sequence[int]) -> dict[int, int]:
    """Return the mask of digits without conflict for each empty place."""
    side = side_of(grid)
    full, near = (1 << side) - 1, peers(side)
    bits = [1 << digit >> 1 for digit in grid]
    masks: dict[int, int] = {}
    for place, digit in enumerate(grid):
        if not digit:
            taken = 0
            for other in near[place]:
                taken |= bits[other]
            masks[place] = full & ~taken
    return masks


def fill(masks: dict[int, int], place: int, bit: int, side: int) -> None:
    """Put a digit, given as its bit, into a place: its peers lose it."""
    del masks[place]
    for other in peers(side)[place]:
        if other in masks:
            masks[other] &= ~bit


def single(masks: dict[int, int], side: int) -> tuple[int, int] | None:
    """Find the first place with one candidate (a naked single), else the first that is the only one
    of its row, column or box for a digit (a hidden single), with the digit's bit; None without
    any."""
    for place, mask in masks.items():
        if not mask & (mask - 1):
            return place, mask
    for unit in units(side):
        once = twice = 0
        for place in unit:
            mask = masks.get(place, 0)
            twice |= once & mask
            once |= mask
        if hidden := once & ~twice:
            bit = hidden & -hidden
            return next((place, bit) for place in unit if masks.get(place, 0) & bit)
    return None


def deduce(grid: Sequence[int], wanted: int | None = None) -> Grid:
    """The grid as far as singles fill it; up to the wanted place, where one is named. A grid that
    cannot be filled comes back with an empty place."""
    side, digits, masks = side_of(grid), list(grid), candidates(grid)
    while masks and (wanted is None or wanted in masks):
        place, bit = single(masks, side) or (0, 0)
        if not bit:
            break
        digits[place] = bit.bit_length()
        fill(masks, place, bit, side)
    return tuple(digits)


def solutions(grid: Grid) -> Iterator[Grid]:
    """Every way to fill a grid: what follows first, then a guess in the narrowest place."""
    forced = deduce(grid)
    masks = candidates(forced)
    if not masks:
        yield forced
        return
    place = min(masks, key=lambda place: masks[place].bit_count())
    for digit in digits_in(masks[place]):
        yield from solutions((*forced[:place], digit, *forced[place + 1 :]))


@lru_cache(maxsize=1 << 12)
def first_solution(grid: Grid) -> Grid | None:
    return next(solutions(grid), None)
