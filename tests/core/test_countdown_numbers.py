"""Countdown of 2 to 6 numbers: the option, the shares, and the plainest path of many numbers."""

from collections import Counter
from itertools import islice
from random import Random
from typing import Any

import pytest
from pydantic import ValidationError

from stepback_core.tasks.countdown.arithmetic import reachable
from stepback_training.generators import GENERATORS, ErrorKind, Split
from stepback_training.generators.countdown.paths import paths, plainness
from stepback_training.generators.countdown.small_results import LIMIT, can_reach, plainest

FOUR = GENERATORS["countdown"]


@pytest.mark.parametrize("number", [2, 3, 5, 6])
@pytest.mark.parametrize("split", [Split.TRAIN, Split.TEST_SEEN, Split.TEST_NEW])
def test_problems_have_as_many_numbers_as_asked_for_and_a_path(number: int, split: Split) -> None:
    task = FOUR.with_options({"numbers": number})
    for problem in islice(task.stream(split, Random(number)), 2):
        assert len(problem.numbers) == number
        assert task.split(problem) is split
        path = task.reference_paths(problem)[0]
        assert task.checker.check(problem, path).strict


def test_weights_are_shares_of_the_problems() -> None:
    task = FOUR.with_options({"numbers": {"2": 1, "3": 2, "4": 1}})
    drawn = islice(task.stream(Split.TRAIN, Random(1)), 2000)
    shares = Counter(len(problem.numbers) for problem in drawn)
    assert shares[3] / 2000 == pytest.approx(0.5, abs=0.05)
    assert shares[2] / 2000 == pytest.approx(0.25, abs=0.05)


def test_without_the_option_problems_are_those_of_four_numbers() -> None:
    plain = islice(FOUR.stream(Split.TRAIN, Random(5)), 50)
    named = islice(FOUR.with_options({"numbers": 4}).stream(Split.TRAIN, Random(5)), 50)
    assert list(plain) == list(named)


@pytest.mark.parametrize("numbers", [1, 7, {}, {"1": 1}, {"3": 0}, {"3": -1}, "many"])
def test_what_cannot_be_drawn_is_refused(numbers: Any) -> None:
    with pytest.raises(ValidationError):
        FOUR.with_options({"numbers": numbers})


def test_the_plainest_path_of_many_numbers_is_the_least_of_all() -> None:
    for problem in islice(FOUR.stream(Split.TRAIN, Random(9)), 60):
        numbers = tuple(sorted(problem.numbers))
        least = min(paths(numbers, problem.target), key=plainness)
        found = plainest(numbers, problem.target)
        assert found == (least if plainness(least)[0] <= LIMIT else None)


def test_what_only_large_results_reach_can_still_be_reached() -> None:
    state = (61, 40, 53, 79)
    assert plainest(tuple(sorted(state)), 73) is None
    assert can_reach(tuple(sorted(state)), 73)
    assert not can_reach((1, 1, 1), 90)


def test_a_drawn_dead_end_of_many_numbers_is_one() -> None:
    task = FOUR.with_options({"numbers": 5})
    found = 0
    for seed, problem in enumerate(islice(task.stream(Split.TRAIN, Random(3)), 12)):
        step = task.wrong_step(problem, [], ErrorKind.EXPLORATION, Random(seed))
        if step is not None:
            found += 1
            state = task.checker.state_key(problem, [step])
            assert problem.target not in reachable(state)
    assert found
