"""The tasks, by name. A new task is one file and one line here."""

from typing import Any

from stepback_core.tasks.base import (
    ErrorKind,
    Reason,
    Split,
    Task,
    Verdict,
    is_test_input,
)
from stepback_core.tasks.countdown import Countdown, CountdownProblem
from stepback_core.tasks.maze import Maze
from stepback_core.tasks.maze.problem import MazeProblem
from stepback_core.tasks.sudoku import Sudoku
from stepback_core.tasks.sudoku.problem import SudokuProblem

TASKS: dict[str, Task[Any]] = {
    "countdown": Countdown(),
    "maze": Maze(),
    "sudoku": Sudoku(),
}

__all__ = [
    "TASKS",
    "CountdownProblem",
    "ErrorKind",
    "MazeProblem",
    "Reason",
    "Split",
    "SudokuProblem",
    "Task",
    "Verdict",
    "is_test_input",
]
