"""Digging mazes at random, and the shortest paths through them."""

from collections.abc import Iterator
from random import Random
from typing import Self

from pydantic import Field, model_validator

from stepback_core.tasks.cells import MOST, Cell
from stepback_core.tasks.maze.paths import MOVES, OPEN, WALL, Ways, distances, target
from stepback_training.generators.base import Options


class MazeOptions(Options):
    """Distribution of the mazes of training and tests."""

    # Of 2x2 mazes there are too few for a test split.
    smallest: int = Field(default=4, ge=3, le=MOST)
    largest: int = Field(default=6, ge=3, le=MOST)
    """Cells a side; height and width are drawn each for itself."""
    loops: float = Field(default=0.5, ge=0, le=1)
    """Share of the mazes with more than one way between some cells."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.smallest > self.largest:
            raise ValueError("smallest must not exceed largest")
        return self


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
    """Draw a maze in which every cell is reached, with `loops` more passages than that needs."""
    # A digger that goes on until it is stuck, then from its last cell with rock next to it (the
    # recursive backtracker), leaves long winding ways, and with them long dead ends.
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
