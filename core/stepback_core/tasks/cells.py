"""The cells of a grid: their names in prompts and steps, and the symmetries of a square.

`Ab` is the second cell of the first row. Rows are capital letters and columns small ones, one
character each: a step is equally long everywhere, and no tokenizer joins coordinates to a number.
"""

from collections.abc import Iterator, Sequence
from string import ascii_lowercase, ascii_uppercase

Cell = tuple[int, int]
"""Row and column, from 0."""

MOST = len(ascii_uppercase)
"""The most rows, and the most columns, that have names."""


def cell_name(cell: Cell) -> str:
    return ascii_uppercase[cell[0]] + ascii_lowercase[cell[1]]


def parse_cell(text: str) -> Cell:
    """The cell of a name: one capital and one small ASCII letter."""
    return ascii_uppercase.index(text[0]), ascii_lowercase.index(text[1])


def labelled(rows: Sequence[str]) -> str:
    """Rows in one line, each after its own letter, so that a model finds a cell by its name."""
    return "".join(letter + row for letter, row in zip(ascii_uppercase, rows, strict=False))


def symmetries(rows: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """A grid in its eight rotations and reflections."""
    for grid in (tuple(rows), tuple(map("".join, zip(*rows, strict=True)))):
        for turned in (grid, grid[::-1]):
            yield turned
            yield tuple(row[::-1] for row in turned)
