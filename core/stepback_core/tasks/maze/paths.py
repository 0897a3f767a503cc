"""The ways of a maze: where one can go from a cell, how far it is, and which walls to dig away."""

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from random import Random

from stepback_core.tasks.cells import Cell

WALL, OPEN, START, GOAL = "#", ".", "S", "G"

MOVES: Mapping[str, Cell] = {"^": (-1, 0), ">": (0, 1), "v": (1, 0), "<": (0, -1)}
"""What each move adds to row and column."""

Ways = Mapping[Cell, Sequence[Cell]]
"""The cells that each cell is open to."""


def target(cell: Cell, move: str) -> Cell:
    """Where a move leads from a cell, walls and borders aside."""
    down, right = MOVES[move]
    return cell[0] + down, cell[1] + right


def move_between(cell: Cell, neighbour: Cell) -> str:
    return next(move for move in MOVES if target(cell, move) == neighbour)


def read_ways(rows: Sequence[str]) -> Ways:
    """Cells lie at the odd rows and columns of the drawing, with a wall or a passage between."""
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


def shortest_paths(ways: Ways, start: Cell, goal: Cell) -> Iterator[list[Cell]]:
    """Every shortest path, its start left out."""
    left = distances(ways, goal)
    if start not in left:
        return
    stack: list[list[Cell]] = [[start]]
    while stack:
        path = stack.pop()
        if path[-1] == goal:
            yield path[1:]
        nearer = (cell for cell in ways[path[-1]] if left[cell] == left[path[-1]] - 1)
        stack.extend([*path, cell] for cell in nearer)


def dig(height: int, width: int, loops: int, rng: Random) -> list[list[str]]:
    """A drawing of a maze in which every cell is reached, with so many more passages than that
    needs. A digger that goes on until it is stuck, then from its last cell with rock beside it (the
    recursive backtracker), leaves long winding ways and with them long dead ends."""
    drawing = [[WALL] * (2 * width + 1) for _ in range(2 * height + 1)]
    drawing[1][1] = OPEN
    trail: list[Cell] = [(0, 0)]
    while trail:
        rock = [
            cell
            for move in MOVES
            if _is_inside(cell := target(trail[-1], move), height, width)
            and drawing[2 * cell[0] + 1][2 * cell[1] + 1] == WALL
        ]
        if not rock:
            trail.pop()
            continue
        cell = rng.choice(rock)
        drawing[2 * cell[0] + 1][2 * cell[1] + 1] = OPEN
        _open_between(drawing, trail[-1], cell)
        trail.append(cell)
    for cell, neighbour in rng.sample(walls := _inner_walls(drawing), min(loops, len(walls))):
        _open_between(drawing, cell, neighbour)
    return drawing


def _is_inside(cell: Cell, height: int, width: int) -> bool:
    return 0 <= cell[0] < height and 0 <= cell[1] < width


def _open_between(drawing: list[list[str]], cell: Cell, neighbour: Cell) -> None:
    drawing[cell[0] + neighbour[0] + 1][cell[1] + neighbour[1] + 1] = OPEN


def _inner_walls(drawing: list[list[str]]) -> list[tuple[Cell, Cell]]:
    """The pairs of neighbours, each once, that a wall is between."""
    height, width = len(drawing) // 2, len(drawing[0]) // 2
    pairs = (
        ((row, column), target((row, column), move))
        for row in range(height)
        for column in range(width)
        for move in ">v"
    )
    return [
        (cell, beyond)
        for cell, beyond in pairs
        if _is_inside(beyond, height, width)
        and drawing[cell[0] + beyond[0] + 1][cell[1] + beyond[1] + 1] == WALL
    ]
