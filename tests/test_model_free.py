"""The solvers without a model: what they count, and that they solve what can be solved."""

from itertools import islice
from random import Random

import pytest

from stepback_core.tasks import CountdownProblem, DeductionProblem, MazeProblem, SudokuProblem
from stepback_core.tasks.deduction.checker import Deduction
from stepback_core.tasks.deduction.proof import Direction
from stepback_core.tasks.knights.checker import Knights
from stepback_training.generators import GENERATORS, Split
from tests.benchmarks.dead_ends import count
from tests.benchmarks.model_free import depth_first, measure, random_paths, step_costs
from tests.benchmarks.task_rules import rules_of

MOST = 10_000


def length(step: str) -> int:
    """Characters, and one for the separator."""
    return len(step) + 1


def test_one_pair_of_numbers_costs_the_equations_that_were_tried() -> None:
    """The numbers 2 and 1 make 2+1=3, 2-1=1, 2*1=2 and 2/1=2, in the order of the rules."""
    rules = rules_of(CountdownProblem(numbers=[1, 2], target=1), length)
    assert depth_first(rules, Random(0), MOST, shuffled=False) == 2 * len("2+1=3\n") + 1


def test_the_only_way_through_a_maze_costs_its_moves() -> None:
    corridor = MazeProblem(rows=["#######", "#S...G#", "#######"])
    rules = rules_of(corridor, length)
    wanted = 2 * len(">Ab\n") + 1
    assert random_paths(rules, Random(0), MOST) == depth_first(rules, Random(0), MOST) == wanted


def test_the_last_cell_of_a_grid_costs_one_step() -> None:
    rows = ["3142", "4231", "1324", "241."]
    rules = rules_of(SudokuProblem(rows=rows), length)
    assert random_paths(rules, Random(0), MOST) == depth_first(rules, Random(0), MOST) == 5


def test_the_only_way_of_a_deduction_costs_its_sentences_and_its_answer() -> None:
    facts = ["Sally is a gerpus.", "Every gerpus is a rompus."]
    problem = DeductionProblem(facts=facts, question="Is Sally a rompus or a hilpus?")
    rules = rules_of(problem, length)
    wanted = sum(length(step) for step in [*facts, "Sally is a rompus."]) + 1
    assert random_paths(rules, Random(0), MOST) == depth_first(rules, Random(0), MOST) == wanted


def test_from_the_answers_a_deduction_costs_the_same_sentences_the_other_way_round() -> None:
    facts = ["Sally is a gerpus.", "Every gerpus is a rompus."]
    problem = DeductionProblem(facts=facts, question="Is Sally a rompus or a hilpus?")
    rules = rules_of(problem, length, direction=Direction.BACKWARD)
    wanted = sum(length(step) for step in [*facts, "Sally is a rompus."]) + 1
    assert random_paths(rules, Random(0), MOST) == depth_first(rules, Random(0), MOST) == wanted


def test_sentences_that_go_round_in_a_circle_are_left_at_the_limit() -> None:
    """Backward from `b` there is no other way."""
    facts = ["Every a is a b.", "Every b is an a.", "Sally is a c."]
    problem = DeductionProblem(facts=facts, question="Is Sally a b or a c?")
    found = measure([problem] * 8, length, MOST)
    assert set(found) == {
        f"{solver}{way}"
        for solver in ("random legal steps", "depth-first")
        for way in ("", ", backward")
    }
    assert None in found["random legal steps, backward"]
    assert all(found["depth-first, backward"])


def test_dead_ends_are_counted_among_the_legal_steps_of_each_place() -> None:
    """Forward `Sally is a lempus.` and `Every gerpus is a lempus.` lead nowhere."""
    problem = Deduction.example
    assert count(rules_of(problem, length)) == (4, 6, 2)
    assert count(rules_of(problem, length, direction=Direction.BACKWARD)) == (9, 10, 0)
    # Legal and wrong are A- and, after A+, B+.
    assert count(rules_of(Knights.example, length)) == (4, 6, 2)


def test_what_has_no_solution_is_given_up() -> None:
    rules = rules_of(CountdownProblem(numbers=[1, 1], target=50), length)
    assert depth_first(rules, Random(0), MOST) is None
    assert random_paths(rules, Random(0), MOST) is None


def test_a_limit_is_kept() -> None:
    rules = rules_of(CountdownProblem(numbers=[1, 2], target=3), length)
    whole = random_paths(rules, Random(1), MOST)
    assert whole is not None and random_paths(rules, Random(1), whole - 1) is None
    assert random_paths(rules, Random(1), whole) == whole


@pytest.mark.parametrize("name", [*GENERATORS])
def test_depth_first_solves_whatever_the_generator_draws(name: str) -> None:
    task = GENERATORS[name]
    asked = list(islice(task.stream(Split.TEST_SEEN, Random(1)), 10))
    cost = step_costs()
    found = [depth_first(rules_of(problem, cost), Random(1), 100_000) for problem in asked]
    assert all(found)


@pytest.mark.parametrize("name", ["knights", "sudoku"])
def test_the_narrowest_place_needs_no_more_in_the_mean(name: str) -> None:
    asked = list(islice(GENERATORS[name].stream(Split.TEST_SEEN, Random(2)), 40))
    plain, narrow = (
        [depth_first(rules_of(p, length, narrowest=how), Random(3), MOST) or MOST for p in asked]
        for how in (False, True)
    )
    assert sum(narrow) <= sum(plain)
