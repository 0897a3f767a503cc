"""Knights and knaves: statements in words and signs, the reason of each refusal, and the split."""

from collections.abc import Mapping
from itertools import product
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stepback_core.tasks import TASKS, KnightsProblem, Reason
from stepback_core.tasks.knights.statements import (
    Statement,
    people_of,
    read_signs,
    read_words,
    solutions,
    write_signs,
    write_words,
)
from stepback_training.generators import GENERATORS, ErrorKind, Split
from stepback_training.generators.knights.form import renamed_form

TASK = GENERATORS["knights"]
CHECKER = TASKS["knights"]
PROBLEM: KnightsProblem = CHECKER.example
PATH = ["A+", "C-", "D-", "B-"]
seeds = st.integers(0, 10_000)


def draw(seed: int, **options: Any) -> KnightsProblem:
    return next(TASK.with_options(options).stream(Split.TRAIN, Random(seed)))


def test_the_example_reads_as_documented() -> None:
    assert CHECKER.prompt(PROBLEM) == "knights:A:C-,B:D+,C:A=D,D:A-|B+"
    assert TASK.reference_paths(PROBLEM)[0] == PATH
    assert CHECKER.picture(PROBLEM, PATH[:2]) == "A knight\nB ?\nC knave\nD ?"


def test_a_wrong_role_shows_only_later() -> None:
    assert CHECKER.check_step(PROBLEM, [], "A-") is None
    assert not CHECKER.can_finish(PROBLEM, ["A-"])


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([], Reason.NOT_REACHED),
        (PATH[:-1], Reason.NOT_REACHED),
        (["A+", "C+"], Reason.CONTRADICTION),
        (["A-", "C-"], Reason.CONTRADICTION),
        ([*PATH[:3], "B+"], Reason.CONTRADICTION),
        (["A+", "A+"], Reason.REPEATED),
        (["A+", "A-"], Reason.REPEATED),
        ([*PATH, "A+"], Reason.REPEATED),
        (["E+"], Reason.MALFORMED_STEP),
        (["a+"], Reason.MALFORMED_STEP),
        (["A"], Reason.MALFORMED_STEP),
        (["A+ "], Reason.MALFORMED_STEP),
    ],
)
def test_each_refusal_has_its_reason(steps: list[str], reason: Reason) -> None:
    verdict = CHECKER.check(PROBLEM, steps)
    assert (verdict.strict, verdict.lax, verdict.reason) == (False, False, reason)


@pytest.mark.parametrize(
    ("words", "signs", "true_for"),
    [
        # Of B and C, whose roles are `++`, `+-`, `-+` and `--`, those that make it true.
        ("A says B is a knight.", "A:B+", {"++", "+-"}),
        ("A says B is a knave.", "A:B-", {"-+", "--"}),
        ("A says B is a knave and C is a knight.", "A:B-&C+", {"-+"}),
        ("A says B is a knight or C is a knave.", "A:B+|C-", {"++", "+-", "--"}),
        ("A says B and C are alike.", "A:B=C", {"++", "--"}),
        ("A says B and C differ.", "A:B#C", {"+-", "-+"}),
    ],
)
def test_each_form_is_read_and_means_what_it_says(
    words: str, signs: str, true_for: set[str]
) -> None:
    statement = read_words(words)
    assert statement is not None and statement == read_signs(signs)
    assert (write_words(statement), write_signs(statement)) == (words, signs)
    for b, c in product("+-", repeat=2):
        roles = {"B": b == "+", "C": c == "+"}
        assert statement.fits({"A": True, **roles}) == (b + c in true_for)
        assert statement.fits({"A": False, **roles}) == (b + c not in true_for)


@given(st.permutations(PATH))
def test_every_order_leads_to_one_state(path: list[str]) -> None:
    assert CHECKER.check(PROBLEM, path).strict
    assert CHECKER.state_key(PROBLEM, path) == CHECKER.state_key(PROBLEM, PATH)


def test_a_puzzle_with_two_solutions_takes_both() -> None:
    problem = KnightsProblem(statements=["A says B is a knight.", "B says A is a knight."])
    assert TASK.reference_paths(problem) == [["A+", "B+"], ["A-", "B-"]]


def test_a_puzzle_without_a_solution_has_no_path() -> None:
    problem = KnightsProblem(statements=["A says A is a knave."])
    assert TASK.reference_paths(problem) == [] and not CHECKER.can_finish(problem, [])


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_the_solver_agrees_with_brute_force(seed: int) -> None:
    statements = draw(seed).parsed
    people = people_of(statements)
    tried = (
        dict(zip(people, roles, strict=True))
        for roles in product((True, False), repeat=len(people))
    )
    fitting = [roles for roles in tried if all(each.fits(roles) for each in statements)]
    assert fitting == list(solutions(statements, {}))
    assert len(fitting) == 1


def turned(statement: Statement, new: Mapping[str, str], rng: Random) -> Statement:
    """The same of other people, those spoken of in any order."""
    order = rng.sample(range(len(statement.about)), len(statement.about))
    about = tuple(new[statement.about[place]] for place in order)
    roles = tuple(statement.roles[place] for place in order if statement.roles)
    return Statement(new[statement.speaker], statement.form, about, roles)


@settings(deadline=None, max_examples=30)
@given(seeds)
def test_other_names_in_another_order_are_the_same_side_of_the_split(seed: int) -> None:
    rng = Random(seed)
    problem = draw(seed)
    people = people_of(problem.parsed)
    new = dict(zip(people, rng.sample("ABCDEFGHIJKL", len(people)), strict=True))
    statements = [
        turned(each, new, rng) for each in rng.sample(problem.parsed, len(problem.parsed))
    ]
    renamed = KnightsProblem(statements=[*map(write_words, statements)])
    assert renamed_form(renamed.parsed) == renamed_form(problem.parsed)
    assert TASK.split(renamed) is TASK.split(problem)


def test_a_statement_that_is_said_again_changes_no_side() -> None:
    for again in ["A says C is a knave.", "C says D and A are alike."]:
        longer = KnightsProblem(statements=[*PROBLEM.statements, again])
        assert renamed_form(longer.parsed) == renamed_form(PROBLEM.parsed)


def test_an_invented_wrong_step_is_about_the_person_whose_turn_it_is() -> None:
    """So that a marker learns which role is wrong, not who is named out of turn."""
    for seed in range(60):
        problem = draw(seed)
        path = TASK.reference_paths(problem)[0]
        for depth, right in enumerate(path):
            for kind in (ErrorKind.EXPLORATION, ErrorKind.COMPUTATIONAL):
                wrong = TASK.wrong_step(problem, path[:depth], kind, Random(seed))
                assert wrong is None or (wrong[0] == right[0] and wrong != right)


def test_puzzles_that_differ_have_other_forms() -> None:
    assert len({renamed_form(draw(seed).parsed) for seed in range(200)}) > 195


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        ([], "at least 1 item"),
        (["A is a knave."], "'A is a knave.' is not of the form"),
        (
            ["A says B is a knave.", "B says that A lies."],
            "'B says that A lies.' is not of the form",
        ),
        (["A says B and B are alike."], "'A says B and B are alike.' speaks of B twice"),
        ([f"{one} says A is a knave." for one in "BCDEFGHIJKLM"], "there are 13 people"),
    ],
)
def test_what_is_no_puzzle_is_refused(statements: list[str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        KnightsProblem(statements=statements)


@pytest.mark.parametrize("options", [{"people": (2, 4)}, {"people": (6, 4)}, {"people": (4, 13)}])
def test_sizes_that_cannot_be_drawn_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TASK.with_options(options)
