"""Sudoku: what a puzzle is, the solver, the two verdicts, and the split under symmetries."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stepback_core.manifest import Manifest
from stepback_core.tasks import TASKS, Reason, SudokuProblem
from stepback_core.tasks.cells import symmetries
from stepback_core.tasks.sudoku.grid import Grid, deduce, rows_of, solutions, units
from stepback_training.generators import GENERATORS, ErrorKind, Split
from stepback_training.generators.sudoku.generation import variants
from stepback_training.generators.sudoku.symmetry import equivalence_form, rearranged

TASK = GENERATORS["sudoku"]
CHECKER = TASKS["sudoku"]
PROBLEM: SudokuProblem = CHECKER.example
PATH = ["Bb2", "Aa3", "Ac4", "Ad2", "Bc3", "Ca1", "Cd4", "Da2", "Db4", "Dc1", "Dd3"]
# Well-known: one that singles solve, and one that they do not.
EASY = "530070000600195000098000060800060003400803001700020006060000280000419005000080079"
HARD = "800000000003600000070090200050007000000045700000100030001000068008500010090000400"


def draw(seed: int, **options: Any) -> SudokuProblem:
    return next(TASK.with_options(options).stream(Split.TRAIN, Random(seed)))


def grid_of(text: str) -> Grid:
    return tuple(map(int, text))


def grid_of_rows(rows: Sequence[str]) -> Grid:
    return SudokuProblem(rows=list(rows)).grid


def problem_of(grid: Grid) -> SudokuProblem:
    return SudokuProblem(rows=rows_of(grid))


def test_the_example_reads_as_documented() -> None:
    assert CHECKER.prompt(PROBLEM) == "sudoku:A.1..B4..1C.32.D...."
    assert TASK.reference_paths(PROBLEM)[0] == PATH
    assert str(CHECKER.picture(PROBLEM, [])).splitlines() == [
        ". 1 | . .",
        "4 . | . 1",
        "----+----",
        ". 3 | 2 .",
        ". . | . .",
    ]
    assert "3 1 | 4 2\n4 2 | 3 1" in str(CHECKER.picture(PROBLEM, PATH))


def test_zeros_are_empty_cells_too() -> None:
    zeros = SudokuProblem(rows=[row.replace(".", "0") for row in PROBLEM.rows])
    assert CHECKER.prompt(zeros) == CHECKER.prompt(PROBLEM)
    assert TASK.split(zeros) is TASK.split(PROBLEM)


@pytest.mark.parametrize(
    ("steps", "reason", "lax"),
    [
        ([], Reason.NOT_REACHED, False),
        (PATH[:-1], Reason.NOT_REACHED, False),
        (["Bb1"], Reason.CONFLICT, False),
        (["Aa4"], Reason.CONFLICT, False),
        (["Ab1"], Reason.OCCUPIED, False),
        (["Bb2", "Bb3"], Reason.OCCUPIED, False),
        (["Dd4", *PATH[:-1]], Reason.CONFLICT, False),
        (["Dd4", *PATH], Reason.CONFLICT, True),
        ([*PATH, PATH[-1]], Reason.OCCUPIED, True),
        (["Ab2", *PATH], Reason.OCCUPIED, True),
        (["Ee1"], Reason.MALFORMED_STEP, False),
        (["Bb5"], Reason.MALFORMED_STEP, False),
        (["Bb0"], Reason.MALFORMED_STEP, False),
        (["bB2"], Reason.MALFORMED_STEP, False),
        (["Bb22"], Reason.MALFORMED_STEP, False),
    ],
)
def test_refusals(steps: list[str], reason: Reason, lax: bool) -> None:
    verdict = CHECKER.check(PROBLEM, steps)
    assert (verdict.strict, verdict.reason, verdict.lax) == (False, reason, lax)


@given(st.permutations(PATH))
def test_every_order_is_right_and_leads_to_one_state(path: list[str]) -> None:
    assert CHECKER.check(PROBLEM, path).strict
    assert CHECKER.state_key(PROBLEM, path) == CHECKER.state_key(PROBLEM, PATH)


def test_a_puzzle_with_several_solutions_takes_any_of_them() -> None:
    empty = SudokuProblem(rows=["...."] * 4)
    paths = TASK.reference_paths(empty)
    assert len(paths) >= 2 and all(CHECKER.check(empty, path).strict for path in paths)


def test_a_puzzle_without_a_solution_has_no_path() -> None:
    assert TASK.reference_paths(SudokuProblem(rows=["123.", "...4", "....", "...."])) == []


def test_there_are_288_full_grids_of_side_4() -> None:
    assert len(set(solutions((0,) * 16))) == 288


@pytest.mark.parametrize("text", [EASY, HARD])
def test_the_solver_finds_the_one_solution(text: str) -> None:
    [solution] = solutions(grid_of(text))
    assert all({solution[place] for place in unit} == set(range(1, 10)) for unit in units(9))
    assert all(given in (0, digit) for given, digit in zip(grid_of(text), solution, strict=True))


def test_singles_solve_the_easy_puzzle_alone() -> None:
    assert 0 not in deduce(grid_of(EASY))
    assert 0 in deduce(grid_of(HARD))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_the_solver_agrees_with_brute_force(seed: int) -> None:
    rng = Random(seed)
    [full] = solutions(draw(seed).grid)
    empty = rng.sample(range(16), 6)
    grid = tuple(0 if place in empty else digit for place, digit in enumerate(full))
    tried = (
        dict(zip(empty, digits, strict=True)) for digits in product(range(1, 5), repeat=len(empty))
    )
    filled = (tuple(t.get(place, digit) for place, digit in enumerate(full)) for t in tried)
    right = {g for g in filled if all(len({g[p] for p in unit}) == 4 for unit in units(4))}
    assert set(solutions(grid)) == right


@pytest.mark.parametrize(
    "options",
    [
        {"size": 4},
        {"size": 4, "singles": False, "givens": (4, 4)},
        {"size": 9, "givens": (28, 34)},
        {"size": 9, "singles": False, "givens": (26, 30)},
    ],
)
def test_drawn_puzzles_have_one_solution_and_the_givens_asked_for(options: Any) -> None:
    fewest, most = options.get("givens", (4, 10))
    for seed in range(5):
        grid = draw(seed, **options).grid
        assert len(list(solutions(grid))) == 1
        assert fewest <= sum(map(bool, grid)) <= most
        if options.get("singles", True):
            assert 0 not in deduce(grid)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.sampled_from([4, 9]))
def test_an_exploration_error_contradicts_the_solution(seed: int, size: int) -> None:
    rng = Random(seed)
    problem = draw(seed, size=size)
    path = TASK.reference_paths(problem)[0]
    prefix = path[: rng.randrange(len(path))]
    wrong = TASK.wrong_step(problem, prefix, ErrorKind.EXPLORATION, rng)
    if wrong is not None:
        assert CHECKER.check_step(problem, prefix, wrong) is None
        state: Any = CHECKER.state_key(problem, [*prefix, wrong])
        assert list(solutions(state)) == []
        assert wrong not in path


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([4, 9]), st.booleans())
def test_equivalent_puzzles_are_of_one_split(seed: int, size: int, singles: bool) -> None:
    problem, rng = draw(seed, size=size, singles=singles), Random(seed)
    same = [*map(grid_of_rows, symmetries(problem.rows)), *variants(problem.grid, 8, rng)]
    same += [rearranged(problem.grid, rng) for _ in range(20)]
    assert {equivalence_form(grid) for grid in same} == {equivalence_form(problem.grid)}
    assert {TASK.split(problem_of(grid)) for grid in same} == {TASK.split(problem)}
    assert len(set(same)) > 1


def exchanged(grid: Grid, *, lines: tuple[int, int]) -> Grid:
    """The grid with two of its rows in each other's place."""
    rows, (one, other) = rows_of(grid, empty="0"), lines
    rows[one], rows[other] = rows[other], rows[one]
    return grid_of("".join(rows))


@pytest.mark.parametrize("seed", range(10))
def test_an_exchange_of_rows_counts_within_a_band_alone(seed: int) -> None:
    grid = draw(seed, size=9).grid
    form = equivalence_form(grid)
    assert equivalence_form(exchanged(grid, lines=(3, 5))) == form
    assert equivalence_form(exchanged(grid, lines=(2, 3))) != form


def test_the_16_given_digits_of_all_full_grids_of_side_4_are_two_classes() -> None:
    """As is known: 288 grids, two classes under the game's symmetries."""
    assert len({equivalence_form(grid) for grid in solutions((0,) * 16)}) == 2


@pytest.mark.parametrize("side", [4, 9])
def test_different_puzzles_differ_in_their_form(side: int) -> None:
    """Each puzzle against itself without one of its givens, and with one given moved."""
    grid = draw(3, size=side).grid
    forms = {equivalence_form((*grid[:at], 0, *grid[at + 1 :])) for at in range(len(grid))}
    assert len(forms) > side and equivalence_form((0,) * len(grid)) not in forms


def test_the_split_says_its_version() -> None:
    """A checkpoint of the split before it tells another rule."""
    assert TASK.split_rule.startswith("version 2: ")
    bundled = Path(__file__).parents[2] / "models/multitask-10m"
    assert "version 2" not in Manifest.read(bundled).split


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least 4"),
        (["....."] * 5, "there are 5 rows; a Sudoku has 4 or 9"),
        (["...."] * 3 + ["..."], "row 4 has 3 characters, but there are 4 rows"),
        (["...."] * 9, "row 1 has 4 characters, but there are 9 rows"),
        (["5...", "....", "....", "...."], "cell Aa holds 5; the digits are 1 to 4"),
        (["1..1", "....", "....", "...."], "cell Aa holds 1, which stands in its row"),
        (["1...", ".1..", "....", "...."], "cell Aa holds 1"),
        (["x...", "....", "....", "...."], "match pattern"),
        (["....", "....", "....", "...\n"], "match pattern"),
        (["٣...", "....", "....", "...."], "match pattern"),
        ([[1, 0, 0, 0]] * 4, "valid string"),
        (["." * 10] * 9, "at most 9"),
        (["." * 9] * 10, "at most 9"),
    ],
)
def test_a_malformed_puzzle_is_refused_with_what_is_wrong(rows: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SudokuProblem.model_validate({"rows": rows})


@pytest.mark.parametrize(
    "options",
    [{"size": 6}, {"givens": (3, 5)}, {"givens": (8, 5)}, {"givens": (4, 16)}, {"givens": (5,)}],
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TASK.with_options(options)
