"""Intervals and paired tests against numbers that are known."""

import pytest

from stepback_training.sampling.statistics import Pairs, wilson


def test_wilson_is_as_published() -> None:
    """Newcombe (1998), table I, method 3: 81 of 263, 15 of 148, 0 of 20."""
    for hits, total, low, high in ((81, 263, 25.53, 36.62), (15, 148, 6.24, 16.05)):
        assert wilson(hits, total) == (pytest.approx(low, abs=0.01), pytest.approx(high, abs=0.01))
    assert wilson(0, 20) == (0.0, pytest.approx(16.11, abs=0.01))


@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (0, 5, 0.0625), (8, 2, 0.109375), (5, 5, 1.0)],
)
def test_mcnemar_is_the_two_sided_binomial_test(wins: int, losses: int, p: float) -> None:
    one = [True] * wins + [False] * losses + [True, False] * 10
    other = [False] * wins + [True] * losses + [True, False] * 10
    pairs = Pairs.count(one, other)
    assert (pairs.wins, pairs.losses, pairs.of) == (wins, losses, len(one))
    assert pairs.p == pytest.approx(p)
    assert pairs.points == pytest.approx(100 * (wins - losses) / len(one))


def test_other_problems_are_no_pairs() -> None:
    with pytest.raises(ValueError, match="zip"):
        Pairs.count([True], [True, False])
