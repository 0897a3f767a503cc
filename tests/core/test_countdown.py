"""Countdown: the rules, the wrong steps, both verdicts, and the split."""

from collections import Counter
from hashlib import sha256
from itertools import islice
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stepback_core.tasks import TASKS, CountdownProblem, Reason
from stepback_core.tasks.countdown.arithmetic import believe, reachable
from stepback_training.generators import GENERATORS, ErrorKind, Split
from stepback_training.generators.countdown import NEW_TARGETS

TASK = GENERATORS["countdown"]
CHECKER = TASKS["countdown"]
PROBLEM = CountdownProblem(numbers=[20, 3, 7, 5], target=41)
PATH = ["7*3=21", "20/5=4", "21-4=17"]

problems = st.builds(
    lambda seed, split: next(iter(TASK.stream(split, Random(seed)))),
    st.integers(0, 10_000),
    st.sampled_from(Split),
)


def test_the_example_that_every_page_shows_has_a_solution_and_is_held_out() -> None:
    example = CountdownProblem(numbers=[4, 16, 25, 82], target=95)
    assert CHECKER.check(example, ["16-4=12", "25-12=13", "82+13=95"]).strict
    assert TASK.split(example) is Split.TEST_SEEN


def test_the_prompt_sorts_the_inputs() -> None:
    assert CHECKER.prompt(PROBLEM) == "countdown:3,5,7,20=41"


@pytest.mark.parametrize(
    "fields",
    [
        {"numbers": [25, 50, 75, 100, 3, 6], "target": 95},
        {"numbers": [25, 50, 75], "target": 952},
        {"numbers": [4, 16], "target": 0},
        {"numbers": [1, 2, 3, 4, 5, 6, 7], "target": 28},
        {"numbers": [4], "target": 4},
        {"numbers": [4, 0], "target": 4},
        {"numbers": [4, True], "target": 5},
        {"numbers": ["4", "16"], "target": 20},
        {"numbers": [4, 1.5], "target": 20},
        {"numbers": [4, 16], "target": float("inf")},
        {"numbers": [4, 16]},
        {"numbers": [4, 16], "target": 20, "leftovers": True},
    ],
)
def test_a_problem_of_another_game_is_refused_with_the_rule(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        CountdownProblem.model_validate(fields)
    for error in refused.value.errors():
        assert "2 to 6 integers from 1 to 99, all of them used" in error["msg"]
        assert "target from 1 to 199" in error["msg"]


def test_a_number_without_a_fraction_is_an_integer() -> None:
    fields = {"numbers": [4.0, 16.0], "target": 20.0}
    assert CountdownProblem.model_validate(fields) == CountdownProblem(numbers=[4, 16], target=20)


@settings(deadline=None, max_examples=60)
@given(problems)
def test_every_reference_path_is_accepted(problem: CountdownProblem) -> None:
    paths = TASK.reference_paths(problem)
    assert paths
    for path in paths:
        verdict = CHECKER.check(problem, path)
        assert verdict.strict and verdict.reason is None
    assert len({tuple(path) for path in paths}) == len(paths)


@settings(deadline=None, max_examples=60)
@given(problems, st.sampled_from(ErrorKind), st.integers(0, 2), st.randoms(use_true_random=False))
def test_every_wrong_step_is_refused(
    problem: CountdownProblem, kind: ErrorKind, depth: int, rng: Random
) -> None:
    prefix = TASK.reference_paths(problem)[0][:depth]
    wrong = TASK.wrong_step(problem, prefix, kind, rng)
    if wrong is None:
        assert kind is ErrorKind.EXPLORATION
        return
    reason = CHECKER.check_step(problem, prefix, wrong)
    expected = {
        ErrorKind.EXPLORATION: None,
        ErrorKind.COMPUTATIONAL: Reason.WRONG_ARITHMETIC,
        ErrorKind.RULE_VIOLATION: Reason.UNAVAILABLE_OPERAND,
    }
    assert reason == expected[kind]
    assert not CHECKER.check(problem, [*prefix, wrong]).strict
    if kind is ErrorKind.EXPLORATION:
        paths = TASK.reference_paths(problem)
        assert [*prefix, wrong] not in [path[: depth + 1] for path in paths]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 30), min_size=2, max_size=4), st.integers(10, 100))
def test_the_exhaustive_search_agrees_with_brute_force(numbers: list[int], target: int) -> None:
    problem = CountdownProblem(numbers=numbers, target=target)
    assert bool(TASK.reference_paths(problem)) == _brute_force(numbers, target)


def _brute_force(numbers: list[int], target: int) -> bool:
    if len(numbers) == 1:
        return numbers[0] == target
    for i, a in enumerate(numbers):
        for j, b in enumerate(numbers):
            if i == j:
                continue
            rest = [n for k, n in enumerate(numbers) if k not in (i, j)]
            results = [a + b, a * b] + ([a - b] if a >= b else [])
            results += [a // b] if b and a % b == 0 else []
            if any(_brute_force([*rest, result], target) for result in results):
                return True
    return False


@pytest.mark.parametrize(
    ("steps", "reason", "lax"),
    [
        (["20+7=27", "5*3=15", "27+15=42"], Reason.NOT_REACHED, False),
        (["20+7=27", "5*3=15"], Reason.NOT_REACHED, False),
        ([], Reason.NOT_REACHED, False),
        (["20+7=28"], Reason.WRONG_ARITHMETIC, False),
        (["20/3=6"], Reason.WRONG_ARITHMETIC, False),
        (["20+8=28"], Reason.UNAVAILABLE_OPERAND, False),
        (["20+20=40"], Reason.UNAVAILABLE_OPERAND, False),
        (["20 + 7 = 27"], Reason.MALFORMED_STEP, False),
        (["3-5=-2"], Reason.MALFORMED_STEP, False),
        (["20+7"], Reason.MALFORMED_STEP, False),
        (["20+07=27"], Reason.MALFORMED_STEP, False),
        (["٢٠+7=27"], Reason.MALFORMED_STEP, False),
        (["__import__('os')"], Reason.MALFORMED_STEP, False),
        (["9" * 5000 + "+1=2"], Reason.MALFORMED_STEP, False),
        (["20*3=60", "60-7=53", "53-12=41"], Reason.UNAVAILABLE_OPERAND, False),
        (["20+7=27", "27+5=32", "32+3=35"], Reason.NOT_REACHED, False),
    ],
)
def test_refusals(steps: list[str], reason: Reason, lax: bool) -> None:
    verdict = CHECKER.check(PROBLEM, steps)
    assert (verdict.strict, verdict.reason, verdict.lax) == (False, reason, lax)


def test_where_lax_accepts_and_strict_does_not() -> None:
    unused = CountdownProblem(numbers=[20, 21, 7, 5], target=41)
    assert CHECKER.check(unused, ["20+21=41"]).lax
    assert CHECKER.check(unused, ["20+21=41"]).reason is Reason.NOT_REACHED
    floored = CountdownProblem(numbers=[20, 3, 7, 5], target=18)
    verdict = CHECKER.check(floored, ["20/3=6", "6+7=13", "13+5=18"])
    assert verdict.lax and verdict.reason is Reason.WRONG_ARITHMETIC


@pytest.mark.parametrize(
    ("numbers", "target", "steps"),
    [
        ([20, 3, 7, 5], 27, ["20+7=27 and so on"]),
        ([20, 3, 7, 5], 27, ["20 + 7 = 27"]),
        # It looks for each operand by itself, so one 20 serves twice.
        ([20, 3, 7, 5], 40, ["20+20=40"]),
    ],
)
def test_what_else_the_papers_checker_lets_pass(
    numbers: list[int], target: int, steps: list[str]
) -> None:
    verdict = CHECKER.check(CountdownProblem(numbers=numbers, target=target), steps)
    assert verdict.lax and not verdict.strict


def test_training_meets_targets_that_end_like_the_held_out_ones() -> None:
    """Else a model that reads digits learns that a last result ending in 7 is always wrong."""
    targets = {p.target for p in islice(TASK.stream(Split.TRAIN, Random(1)), 5000)}
    assert not targets & NEW_TARGETS
    assert {7, 107, 117, 147} <= targets


@settings(deadline=None, max_examples=200)
@given(problems, st.sampled_from(ErrorKind), st.randoms(use_true_random=False))
def test_no_wrong_step_ends_in_a_held_out_target(
    problem: CountdownProblem, kind: ErrorKind, rng: Random
) -> None:
    prefix = TASK.reference_paths(problem)[0][:2]
    wrong = TASK.wrong_step(problem, prefix, kind, rng)
    assert wrong is None or int(wrong.rpartition("=")[2]) not in NEW_TARGETS


def test_where_strict_accepts_and_lax_does_not() -> None:
    twins = CountdownProblem(numbers=[6, 6, 6], target=42)
    verdict = CHECKER.check(twins, ["6*6=36", "36+6=42"])
    assert verdict.strict and not verdict.lax


def test_the_state_is_what_is_left_whatever_the_order_of_steps() -> None:
    ways = [["7*3=21", "20/5=4"], ["20/5=4", "7*3=21"]]
    assert {CHECKER.state_key(PROBLEM, way) for way in ways} == {(4, 21)}
    assert CHECKER.state_key(PROBLEM, []) == (3, 5, 7, 20)
    assert CHECKER.state_key(PROBLEM, ["7*3=22"]) is None
    assert CHECKER.state_key(PROBLEM, ["7*3=21", "7*3=21"]) is None


def test_an_impossible_problem_has_no_path() -> None:
    assert TASK.reference_paths(CountdownProblem(numbers=[1, 1], target=99)) == []


def test_the_split_is_the_first_byte_of_the_canonical_inputs() -> None:
    for seed in range(200):
        rng = Random(seed)
        numbers = [rng.randint(1, 99) for _ in range(4)]
        target = rng.randint(10, 100)
        canonical = "countdown:" + ",".join(str(n) for n in sorted(numbers))
        in_test = sha256(canonical.encode("utf-8")).digest()[0] < 26
        split = TASK.split(CountdownProblem(numbers=numbers, target=target))
        if in_test:
            assert split is (Split.TEST_NEW if target in NEW_TARGETS else Split.TEST_SEEN)
        else:
            assert split is (None if target in NEW_TARGETS else Split.TRAIN)
    assert sorted(NEW_TARGETS) == [17, 27, 37, 47, 57, 67, 77, 87, 97]


@pytest.mark.parametrize("split", Split)
def test_drawn_problems_belong_to_their_split_and_are_solvable(split: Split) -> None:
    for problem in islice(TASK.stream(split, Random(3)), 100):
        assert TASK.split(problem) is split
        assert problem.target in reachable(tuple(sorted(problem.numbers)))


def test_wrong_steps_are_taken_at_their_word() -> None:
    numbers = [4, 16, 25, 82]
    assert believe(numbers, ["16-4=12", "25-12=14"]) == (14, 82)
    # An operand that is not there cannot be used up.
    assert believe(numbers, ["99-4=95"]) == (16, 25, 82, 95)
    assert believe(numbers, ["nonsense"]) == (4, 16, 25, 82)


def test_a_follow_up_often_claims_the_target() -> None:
    problem = CountdownProblem(numbers=[4, 16, 25, 82], target=96)
    steps = ["16-4=12", "25-12=14"]
    ends = Counter(TASK.follow_up(problem, steps, Random(seed)) for seed in range(200))
    assert set(ends) == {"82+14=96", "82-14=68", "82*14=1148"}
    assert ends["82+14=96"] > 100


def test_an_end_in_a_held_out_target_is_told_from_a_result_on_the_way() -> None:
    problem = CountdownProblem(numbers=[4, 16, 25, 82], target=96)
    assert TASK.ends_held_out(problem, ["16-4=12", "25-12=13", "82-13=67"])
    assert not TASK.ends_held_out(problem, ["16-4=12", "25-12=13", "82-13=69"])
    assert not TASK.ends_held_out(problem, ["16-4=12", "25+12=37"])
