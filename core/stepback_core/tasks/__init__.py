"""The built-in tasks, by name; `stepback_core.tasks.base` says what a task is."""

from typing import Any

from stepback_core.tasks.base import Checker, Reason, Verdict
from stepback_core.tasks.countdown import Countdown, CountdownProblem
from stepback_core.tasks.maze import Maze
from stepback_core.tasks.maze.problem import MazeProblem
from stepback_core.tasks.sudoku import Sudoku
from stepback_core.tasks.sudoku.problem import SudokuProblem

TASKS: dict[str, Checker[Any]] = {
    "countdown": Countdown(),
    "maze": Maze(),
    "sudoku": Sudoku(),
}

__all__ = [
    "TASKS",
    "Checker",
    "CountdownProblem",
    "MazeProblem",
    "Reason",
    "SudokuProblem",
    "Verdict",
]
