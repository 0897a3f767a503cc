"""Share of test puzzles of Sudoku 4x4 with an equivalent in training, by version of the split.

    python -m tests.benchmarks.twins [--training 22000] [--problems 1000]

`--training` is how many puzzles the bundled checkpoint's training drew: its 181,818 samples of
Sudoku are of one puzzle in eight, each from eight sides.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from random import Random

from stepback_core.tasks import SudokuProblem
from stepback_core.tasks.cells import symmetries
from stepback_core.tasks.sudoku.grid import Grid, rows_of
from stepback_training.generators import GENERATORS, Split, is_test_input
from stepback_training.generators.sudoku.generation import SudokuOptions, draw
from stepback_training.generators.sudoku.symmetry import equivalence_form
from tests.benchmarks.measuring import FINAL_SEED

_TASK = GENERATORS["sudoku"]
_TRAINING_SEED = 12


def is_test_now(grid: Grid) -> bool:
    return _TASK.split(SudokuProblem(rows=rows_of(grid))) is Split.TEST_SEEN


def is_test_in_version_1(grid: Grid) -> bool:
    """The rule that the bundled checkpoint was trained under: rotations, reflections and names."""
    return is_test_input(f"sudoku:{min(map(_renamed, symmetries(rows_of(grid))))}")


def _renamed(rows: tuple[str, ...]) -> str:
    order = dict.fromkeys(digit for digit in "".join(rows) if digit != ".")
    return "/".join(rows).translate({ord(old): str(new) for new, old in enumerate(order, start=1)})


def puzzles(seed: int, *, of: Callable[[Grid], bool]) -> Iterator[Grid]:
    rng = Random(seed)
    while True:
        if of(grid := draw(SudokuOptions(size=4), rng)):
            yield grid


def twins(
    trained: Callable[[Grid], bool], test: Callable[[Grid], bool], count: int, of: int
) -> str:
    """Test puzzles with a twin among the trained ones, and how many kinds of them there are."""
    seen = {equivalence_form(grid) for grid in islice(puzzles(_TRAINING_SEED, of=trained), count)}
    forms = [equivalence_form(grid) for grid in islice(puzzles(FINAL_SEED, of=test), of)]
    share = 100 * sum(form in seen for form in forms) / of
    return f"{share:.1f} % of {of:,} have a twin; they are {len(set(forms)):,} different ones"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--training", type=int, default=22_000, help="puzzles that training drew")
    parser.add_argument("--problems", type=int, default=1000)
    given = parser.parse_args()

    def trained_before(grid: Grid) -> bool:
        return not is_test_in_version_1(grid)

    cases = {
        "version 1, trained and tested": (trained_before, is_test_in_version_1),
        "trained in version 1, tested in version 2": (trained_before, is_test_now),
        "version 2, trained and tested": (lambda grid: not is_test_now(grid), is_test_now),
    }
    for name, sides in cases.items():
        trained, tested = sides
        found = twins(trained, tested, given.training, given.problems)
        print(f"{name}: {found}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
