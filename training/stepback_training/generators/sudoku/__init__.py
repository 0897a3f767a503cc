"""Sudoku's training data: puzzles that are dug out of full grids."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from random import Random
from typing import Any

from stepback_core.tasks.sudoku.checker import Sudoku, overwrite, replay
from stepback_core.tasks.sudoku.grid import rows_of, solutions
from stepback_core.tasks.sudoku.problem import SudokuProblem
from stepback_training.generators.base import ErrorKind, Generator, Split, is_test_input
from stepback_training.generators.sudoku.errors import (
    exploration_error,
    follow_up,
    rule_violation,
    step_of,
)
from stepback_training.generators.sudoku.generation import (
    SudokuOptions,
    draw,
    variants,
)
from stepback_training.generators.sudoku.order import constrained_order
from stepback_training.generators.sudoku.symmetry import equivalence_form

_MOST_SOLUTIONS = 2
_VARIANTS_IN_TRAINING = 8


class SudokuGenerator(Generator[SudokuProblem]):
    """Problems and wrong steps of Sudoku."""

    checker = Sudoku()
    split_rule = (
        "version 2: test puzzles: first byte of SHA-256 over the puzzle below 26 (about 10 %), in "
        "a form that all equivalent puzzles share: exchanges of rows in a band, of columns in a "
        "stack, of bands, of stacks, of rows with columns, and of the names of the digits. "
        "(Version 1 knew the eight rotations and reflections and the names alone, and its rule "
        "begins without a version)"
    )
    splits = (Split.TRAIN, Split.TEST_SEEN)
    error_kinds = (ErrorKind.EXPLORATION, ErrorKind.RULE_VIOLATION)

    def __init__(self, options: SudokuOptions | None = None) -> None:
        self._options = options or SudokuOptions()

    def with_options(self, options: Mapping[str, Any]) -> "SudokuGenerator":
        return SudokuGenerator(SudokuOptions.model_validate(options))

    def split(self, problem: SudokuProblem) -> Split:
        form = equivalence_form(problem.grid)
        return Split.TEST_SEEN if is_test_input(f"{self.name}:v2:{form}") else Split.TRAIN

    def stream(self, split: Split, rng: Random) -> Iterator[SudokuProblem]:
        """Training sees each puzzle from several sides, since to dig one is what takes time."""
        if split not in self.splits:
            raise ValueError(f"{self.name} has no {split} problems")
        while True:
            grid = draw(self._options, rng)
            if self.split(SudokuProblem(rows=rows_of(grid))) is not split:
                continue
            number = _VARIANTS_IN_TRAINING if split is Split.TRAIN else 1
            for variant in variants(grid, number, rng):
                yield SudokuProblem(rows=rows_of(variant))

    def reference_paths(self, problem: SudokuProblem) -> list[list[str]]:
        """Every order of filling is correct. Given are that of the most constrained cell first, and
        that of reading; for at most two solutions, where there is more than one."""
        grid = problem.grid
        found = list(islice(solutions(grid), _MOST_SOLUTIONS))
        orders = [(solution, constrained_order(grid, solution)) for solution in found]
        orders += [
            (solution, reading) for solution, order in orders if (reading := sorted(order)) != order
        ]
        return [
            [step_of(grid, place, solution[place]) for place in order] for solution, order in orders
        ]

    def wrong_step(
        self, problem: SudokuProblem, prefix: Sequence[str], kind: ErrorKind, rng: Random
    ) -> str | None:
        """Draw a wrong step. None for a computational error: nothing is computed."""
        grid = replay(problem.grid, prefix)
        if kind is ErrorKind.EXPLORATION:
            return exploration_error(grid, rng)
        return rule_violation(grid, rng) if kind is ErrorKind.RULE_VIOLATION else None

    def follow_up(self, problem: SudokuProblem, steps: Sequence[str], rng: Random) -> str | None:
        return follow_up(overwrite(problem.grid, steps), rng)

    def false_claim(self, problem: SudokuProblem, steps: Sequence[str], rng: Random) -> None:
        """A digit says nothing of the whole grid."""

    def ends_held_out(self, problem: SudokuProblem, steps: Sequence[str]) -> bool:
        """No goal is held out."""
        return False
