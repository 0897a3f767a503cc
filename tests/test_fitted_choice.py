"""A fitted rule of choice finds what tells right answers from wrong ones."""

from random import Random

import pytest
import torch

from tests.benchmarks.fitted_choice import Choice, FittedRule, by


def _drawn(rng: Random) -> Choice:
    """Three answers; the right one has the greatest sum of the first column and half the second."""
    rows = [[rng.gauss(0, 1), rng.gauss(0, 1), rng.gauss(0, 1)] for _ in range(3)]
    told = [first + second / 2 for first, second, _ in rows]
    return Choice(torch.tensor(rows), torch.tensor([each == max(told) for each in told]))


def test_it_weighs_what_decides_and_no_more() -> None:
    rng = Random(1)
    rule = FittedRule([_drawn(rng) for _ in range(400)])
    first, second, noise = rule.weights.tolist()
    assert first > second > 5 * abs(noise)
    asked = [_drawn(rng) for _ in range(200)]
    assert sum(map(rule.chooses_right, asked)) > 190 > sum(by((0,), each) for each in asked)


def test_it_says_so_where_nothing_can_be_fitted() -> None:
    one = Choice(torch.tensor([[1.0, 2.0]]), torch.tensor([True]))
    with pytest.raises(ValueError, match="both right and wrong"):
        FittedRule([one])


def test_a_problem_without_an_answer_is_not_solved() -> None:
    rule = FittedRule([_drawn(Random(2)) for _ in range(20)])
    nothing = Choice(torch.tensor([]), torch.tensor([], dtype=torch.bool))
    assert not rule.chooses_right(nothing) and not by((0,), nothing)


def test_equal_values_leave_the_choice_to_the_next_column() -> None:
    tie = Choice(torch.tensor([[1.0, 0.0], [1.0, 2.0]]), torch.tensor([False, True]))
    assert by((0, 1), tie) and not by((0,), tie)
