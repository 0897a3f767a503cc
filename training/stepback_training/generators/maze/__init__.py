"""The maze's training data: mazes that are dug at random, with long dead ends."""

from collections.abc import Mapping, Sequence
from itertools import islice, pairwise
from random import Random
from typing import Any

from stepback_core.tasks.cells import Cell, cell_name, parse_cell, symmetries
from stepback_core.tasks.maze.checker import STEP, Maze, replay
from stepback_core.tasks.maze.paths import (
    GOAL,
    OPEN,
    START,
    Ways,
    distances,
    find,
    move_between,
    read_ways,
)
from stepback_core.tasks.maze.problem import MazeProblem
from stepback_training.generators.base import ErrorKind, Generator, Split, is_test_input
from stepback_training.generators.maze.errors import (
    computational_error,
    exploration_error,
    false_claim,
    follow_up,
    rule_violation,
)
from stepback_training.generators.maze.generation import MazeOptions, dig, shortest_paths

_MOST_PATHS = 16


class MazeGenerator(Generator[MazeProblem]):
    """Problems and wrong steps of the maze."""

    checker = Maze()
    split_rule = (
        "test mazes: first byte of SHA-256 over the walls below 26 (about 10 %), start and goal "
        "left out, in the one form that the eight rotations and reflections share"
    )
    splits = (Split.TRAIN, Split.TEST_SEEN)
    error_kinds = tuple(ErrorKind)

    def __init__(self, options: MazeOptions | None = None) -> None:
        self._options = options or MazeOptions()

    def with_options(self, options: Mapping[str, Any]) -> "MazeGenerator":
        return MazeGenerator(MazeOptions.model_validate(options))

    def split(self, problem: MazeProblem) -> Split:
        return Split.TEST_SEEN if is_test_input(self._canonical(problem.rows)) else Split.TRAIN

    def draw(self, rng: Random) -> MazeProblem:
        """The goal is at least half as far from the start as the farthest cell."""
        return _draw(self._options, rng)

    def reference_paths(self, problem: MazeProblem) -> list[list[str]]:
        """The shortest paths, at most sixteen of them."""
        start, goal = find(problem.rows, START), find(problem.rows, GOAL)
        paths = islice(shortest_paths(read_ways(problem.rows), start, goal), _MOST_PATHS)
        return [_steps([start, *path]) for path in paths]

    def wrong_step(
        self, problem: MazeProblem, prefix: Sequence[str], kind: ErrorKind, rng: Random
    ) -> str | None:
        ways, way = replay(problem.rows, prefix)
        if kind is ErrorKind.EXPLORATION:
            return exploration_error(ways, way, find(problem.rows, GOAL), rng)
        if kind is ErrorKind.COMPUTATIONAL:
            return computational_error(ways, way, rng)
        return rule_violation(ways, way, rng)

    def follow_up(self, problem: MazeProblem, steps: Sequence[str], rng: Random) -> str | None:
        return follow_up(*self._believe(problem, steps), find(problem.rows, GOAL), rng)

    def false_claim(self, problem: MazeProblem, steps: Sequence[str], rng: Random) -> str | None:
        """Return a move that claims to reach the goal, from any cell but the goal itself."""
        return false_claim(*self._believe(problem, steps), find(problem.rows, GOAL), rng)

    def ends_held_out(self, problem: MazeProblem, steps: Sequence[str]) -> bool:
        """No goal is held out."""
        return False

    def _believe(self, problem: MazeProblem, steps: Sequence[str]) -> tuple[Ways, list[Cell]]:
        """The maze, and the way for one who takes every step at its word."""
        cells = [parse_cell(step[1:]) for step in steps if STEP.fullmatch(step)]
        return read_ways(problem.rows), [find(problem.rows, START), *cells]

    def _canonical(self, rows: Sequence[str]) -> str:
        walls = [row.replace(START, OPEN).replace(GOAL, OPEN) for row in rows]
        return f"{self.name}:{'/'.join(min(symmetries(walls)))}"


def _draw(options: MazeOptions, rng: Random) -> MazeProblem:
    height, width = (rng.randint(options.smallest, options.largest) for _ in range(2))
    loops = rng.randint(1, max(1, height * width // 8)) if rng.random() < options.loops else 0
    drawing = dig(height, width, loops, rng)
    ways = read_ways(["".join(row) for row in drawing])
    start = rng.choice(list(ways))
    far = distances(ways, start)
    goal = rng.choice([cell for cell in far if 2 * far[cell] >= max(far.values())])
    for cell, character in ((start, START), (goal, GOAL)):
        drawing[2 * cell[0] + 1][2 * cell[1] + 1] = character
    return MazeProblem(rows=["".join(row) for row in drawing])


def _steps(way: Sequence[Cell]) -> list[str]:
    return [move_between(cell, after) + cell_name(after) for cell, after in pairwise(way)]
