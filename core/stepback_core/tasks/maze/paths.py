"""The ways of a maze: where one can go from a cell, how far it is, and which walls to dig away."""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

from stepback_core.tasks.cells import Cell

WALL, OPEN, START, GOAL = "#", ".", "S", "G"

MOVES: Mapping[str, Cell] = {"^": (-1, 0), ">": (0, 1), "v": (1, 0), "<": (0, -1)}
"""Change of row and column by each move."""

Ways = Mapping[Cell, Sequence[Cell]]
"""The cells that each cell is open to."""


def target(cell: Cell, move: str) -> Cell:
    """Return the cell that a move leads to, walls and borders aside."""
    down, right = MOVES[move]
    return cell[0] + down, cell[1] + right


def move_between(cell: Cell, neighbour: Cell) -> str:
    return next(move for move in MOVES if target(cell, move) == neighbour)


def read_ways(rows: Sequence[str]) -> Ways:
    """Cells lie at the odd rows and columns of the drawing, with a wall or a passage between."""
    # A tuple, since a list cannot be a key of the cache.
    return _read_ways(tuple(rows))


# A search looks at the same maze again and again.
@lru_cache(maxsize=64)
def _read_ways(rows: tuple[str, ...]) -> Ways:
    return {
        (row, column): [
            (row + down, column + right)
            for down, right in MOVES.values()
            if rows[2 * row + 1 + down][2 * column + 1 + right] != WALL
        ]
        for row in range(len(rows) // 2)
        for column in range(len(rows[0]) // 2)
    }


def find(rows: Sequence[str], character: str) -> Cell:
    """The cell that a character stands in."""
    row = next(row for row, line in enumerate(rows) if character in line)
    return row // 2, rows[row].index(character) // 2


def distances(ways: Ways, start: Cell, closed: Collection[Cell] = ()) -> dict[Cell, int]:
    """Moves to every cell that can be reached from one without entering a closed one."""
    found = {start: 0}
    queue = deque([start])
    while queue:
        cell = queue.popleft()
        for neighbour in ways[cell]:
            if neighbour not in found and neighbour not in closed:
                found[neighbour] = found[cell] + 1
                queue.append(neighbour)
    return found
