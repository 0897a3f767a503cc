"""The symmetries of Sudoku, and a form that all equivalent puzzles share.

Two puzzles are equivalent where rows change places within a band, columns within a stack, bands,
stacks, rows with columns, or the names of the digits: 128 rearrangements of a 4x4 grid, 3,359,232
of a 9x9 one, each with all names of the digits.

For 4x4 the form is the least of the 128. For 9x9 it is a certificate by colour refinement
(Weisfeiler and Leman, 1968): rows, columns and digits are told apart by the givens that they share
until no round tells more apart. Equivalent puzzles have the same certificate by construction.
Unequal ones may share it in principle, which puts them on the same side of a split, never one of
them on either side.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import permutations, product
from math import isqrt
from operator import itemgetter
from random import Random

from stepback_core.tasks.sudoku.grid import Grid, side_of

# The largest grid whose rearrangements are few enough to try them all.
_LISTED_SIDE = 4

# The cells of a grid in another order.
_Pick = Callable[[Sequence[int]], tuple[int, ...]]
# A digit in the grid by its nodes: of its row, its column and its name.
_Given = tuple[int, int, int]


def equivalence_form(grid: Grid) -> str:
    """The same text for all puzzles that are equivalent."""
    if side_of(grid) > _LISTED_SIDE:
        return _certificate(grid)
    filled = [bool(digit) for digit in grid]
    # The places of the givens first: few rearrangements are then left to name the digits of.
    least = min(pick(filled) for pick in _rearrangements())
    tied = (pick(grid) for pick in _rearrangements() if pick(filled) == least)
    return min(map(_renamed, tied))


def rearranged(grid: Grid, rng: Random) -> Grid:
    """An equivalent puzzle, drawn evenly from all of them."""
    side = side_of(grid)
    rows, columns = _shuffled_lines(side, rng), _shuffled_lines(side, rng)
    names = (0, *rng.sample(range(1, side + 1), side))
    cells = list(product(rows, columns))
    if rng.random() < 0.5:
        cells = [(column, row) for row, column in cells]
    return tuple(names[grid[side * row + column]] for row, column in cells)


def _shuffled_lines(side: int, rng: Random) -> list[int]:
    """The rows in an order that keeps those of a band together."""
    box = isqrt(side)
    bands = rng.sample(range(box), box)
    return [box * band + line for band in bands for line in rng.sample(range(box), box)]


@lru_cache
def _rearrangements() -> tuple[_Pick, ...]:
    """Each rearrangement of a 4x4 grid, as the places that its cells are taken from."""
    lines = list(_orders(isqrt(_LISTED_SIDE)))
    upright = [
        [(row, column) for row in rows for column in columns]
        for rows, columns in product(lines, lines)
    ]
    turned = [[(column, row) for row, column in cells] for cells in upright]
    return tuple(
        itemgetter(*(_LISTED_SIDE * row + column for row, column in cells))
        for cells in upright + turned
    )


def _orders(box: int) -> Iterator[list[int]]:
    """Every order of the rows that keeps those of a band together."""
    within = list(permutations(range(box)))
    for bands in permutations(range(box)):
        for inner in product(within, repeat=box):
            yield [box * b + line for b, lines in zip(bands, inner, strict=True) for line in lines]


def _renamed(digits: Sequence[int]) -> str:
    """Digits in one line, named in the order in which they come; 0 stays."""
    names = {0: 0}
    return "".join(str(names.setdefault(digit, len(names))) for digit in digits)


def _certificate(grid: Grid) -> str:
    """Colours of the refinement, round by round, in a canonical order.

    Nodes are rows, then columns, then digits. A round names each by its own colour, the colours of
    the other two nodes of each given there, and the colours of the lines of its band or stack.
    """
    side = side_of(grid)
    givens = [
        (place // side, side + place % side, 2 * side + digit - 1)
        for place, digit in enumerate(grid)
        if digit
    ]
    colours = [0] * (2 * side) + [1] * side
    rounds: list[str] = []
    while True:
        names = _refined(colours, givens, side)
        seen = sorted(set(names))
        rounds.append(repr([(name, names.count(name)) for name in seen]))
        order = {name: number for number, name in enumerate(seen)}
        if len(order) == len(set(colours)):
            return "\n".join(rounds)
        colours = [order[name] for name in names]


def _refined(
    colours: Sequence[int], givens: Sequence[_Given], side: int
) -> list[tuple[int, tuple[int, ...], tuple[tuple[int, int], ...]]]:
    """A name for each node by what is around it."""
    around: list[list[tuple[int, int]]] = [[] for _ in colours]
    for row, column, digit in givens:
        of_row, of_column, of_digit = colours[row], colours[column], colours[digit]
        around[row].append((of_column, of_digit))
        around[column].append((of_row, of_digit))
        # A digit does not tell rows from columns: the two may change places.
        low, high = sorted((of_row, of_column))
        around[digit].append((low, high))
    return [
        (colour, _neighbours(colours, node, side), tuple(sorted(around[node])))
        for node, colour in enumerate(colours)
    ]


def _neighbours(colours: Sequence[int], node: int, side: int) -> tuple[int, ...]:
    """The colours of the lines in the band or stack of a line; none for a digit."""
    if node >= 2 * side:
        return ()
    box = isqrt(side)
    first = node - node % box
    return tuple(sorted(colours[first : first + box]))
