"""The generators of the built-in tasks, by name."""

from typing import Any

from stepback_training.generators.base import ErrorKind, Generator, Split, is_test_input
from stepback_training.generators.countdown import CountdownGenerator
from stepback_training.generators.maze import MazeGenerator
from stepback_training.generators.sudoku import SudokuGenerator

GENERATORS: dict[str, Generator[Any]] = {
    "countdown": CountdownGenerator(),
    "maze": MazeGenerator(),
    "sudoku": SudokuGenerator(),
}

__all__ = ["GENERATORS", "ErrorKind", "Generator", "Split", "is_test_input"]
