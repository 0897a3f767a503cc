"""The generators of the tasks, by name."""

from typing import Any

from stepback_core.tasks.registry import Registry
from stepback_training.generators.base import ErrorKind, Generator, Split, is_test_input
from stepback_training.generators.countdown import CountdownGenerator
from stepback_training.generators.deduction import DeductionGenerator
from stepback_training.generators.knights import KnightsGenerator
from stepback_training.generators.maze import MazeGenerator
from stepback_training.generators.sudoku import SudokuGenerator

GENERATORS: Registry[Generator[Any]] = Registry(
    {
        "countdown": CountdownGenerator(),
        "deduction": DeductionGenerator(),
        "knights": KnightsGenerator(),
        "maze": MazeGenerator(),
        "sudoku": SudokuGenerator(),
    }
)
"""Every task that can be trained here. A command adds plug-ins to it; nothing else changes it."""

__all__ = ["GENERATORS", "ErrorKind", "Generator", "Split", "is_test_input"]
