"""The tasks, by name; `stepback_core.tasks.base` says what a task is."""

from typing import Any

from stepback_core.tasks.base import Checker, Reason, Verdict
from stepback_core.tasks.countdown.checker import Countdown
from stepback_core.tasks.countdown.problem import CountdownProblem
from stepback_core.tasks.deduction.checker import Deduction
from stepback_core.tasks.deduction.problem import DeductionProblem
from stepback_core.tasks.knights.checker import Knights
from stepback_core.tasks.knights.problem import KnightsProblem
from stepback_core.tasks.maze.checker import Maze
from stepback_core.tasks.maze.problem import MazeProblem
from stepback_core.tasks.registry import Registry
from stepback_core.tasks.sudoku.checker import Sudoku
from stepback_core.tasks.sudoku.problem import SudokuProblem

TASKS: Registry[Checker[Any]] = Registry(
    {
        "countdown": Countdown(),
        "deduction": Deduction(),
        "knights": Knights(),
        "maze": Maze(),
        "sudoku": Sudoku(),
    }
)
"""Every task that this process knows. A start adds plug-ins to it; nothing else changes it."""

__all__ = [
    "TASKS",
    "Checker",
    "CountdownProblem",
    "DeductionProblem",
    "KnightsProblem",
    "MazeProblem",
    "Reason",
    "SudokuProblem",
    "Verdict",
]
