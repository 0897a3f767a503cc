"""Independent samples and the vote, on hand-made branches."""

from random import Random

import pytest

from stepback_core.schemas import Outcome
from stepback_server.engine.base import Finish, Sample
from stepback_server.search.sampling import Independent, Majority
from stepback_server.search.strategy import Expansion
from stepback_server.search.tree import Branch, State
from tests.server.search.scripted import END, MARKER


def branch(number: int, answer: int | None) -> Branch:
    ids = (MARKER,) if answer is None else (answer, END)
    logprobs = (-1.0,) * len(ids)
    sample = Sample(index=0, ids=ids, logprobs=logprobs, finish=Finish.STOP, cached_tokens=0)
    outcome = Outcome.BACKTRACK if answer is None else Outcome.ANSWER
    return Branch(number, State(), sample, outcome)


def samples(expansions: list[Expansion]) -> int:
    return sum(expansion.n for expansion in expansions)


def test_without_widening_all_are_asked_for_at_once() -> None:
    strategy = Independent(8, 0.7)
    assert strategy.pick() == [Expansion(State(), 8, 0.7)]
    strategy.record(branch(0, None))
    assert strategy.pick() == []


def test_widening_begins_with_one_and_adds_one_for_every_two_that_failed() -> None:
    strategy = Independent(8, 0.7, widening=True)
    in_flight = samples(strategy.pick())
    widths = [in_flight]
    for number in range(8):
        strategy.record(branch(number, None))
        in_flight += samples(strategy.pick()) - 1
        widths.append(in_flight)
    assert widths == [1, 1, 2, 2, 3, 3, 2, 1, 0]


@pytest.mark.parametrize("widening", [False, True])
def test_the_first_sample_may_be_greedy(widening: bool) -> None:
    strategy = Independent(3, 0.7, widening=widening, greedy_first=True)
    picked = strategy.pick()
    for number in range(3):
        strategy.record(branch(number, None))
        picked += strategy.pick()
    assert picked[0] == Expansion(State(), 1, 0.0)
    assert samples(picked) == 3
    assert {expansion.temperature for expansion in picked[1:]} == {0.7}


def test_at_temperature_0_one_sample_is_all_there_is() -> None:
    strategy = Independent(8, 0.0, greedy_first=True)
    assert strategy.pick() == [Expansion(State(), 1, 0.0)]
    strategy.record(branch(0, 10))
    assert strategy.pick() == []


def majority(n: int, *, widening: bool = True, weights: dict[int, float] | None = None) -> Majority:
    return Majority(
        n,
        0.7,
        answer_of=lambda branch: branch.ids[0],
        weight_of=lambda branch: (weights or {}).get(branch.ids[0], 1.0),
        widening=widening,
    )


def test_a_unanimous_vote_ends_with_its_majority() -> None:
    strategy = majority(16)
    assert samples(strategy.pick()) == 9
    for number in range(9):
        strategy.record(branch(number, 10))
        assert strategy.pick() == []


def test_a_split_vote_asks_for_one_more_each_time() -> None:
    strategy = majority(5)
    assert samples(strategy.pick()) == 3
    strategy.record(branch(0, 10))
    assert strategy.pick() == []
    strategy.record(branch(1, 11))
    assert samples(strategy.pick()) == 1


def test_without_widening_the_vote_takes_all_samples() -> None:
    assert samples(majority(16, widening=False).pick()) == 16


@pytest.mark.parametrize("weights", [None, {0: 0.2, 1: 0.9, 2: 0.55}])
def test_ending_a_vote_early_keeps_its_winner(weights: dict[int, float] | None) -> None:
    """Of 300 random votes, each ends with the winner that all of its samples would have had."""
    saved = 0
    for seed in range(300):
        random = Random(seed)
        cast = random.choices([0, 1, 2, None], [4, 3, 1, 2], k=12)
        totals = {
            answer: sum((weights or {}).get(answer, 1.0) for each in cast if each == answer)
            for answer in {each for each in cast if each is not None}
        }
        strategy = majority(12, weights=weights)
        early: dict[int, float] = {}
        drawn = in_flight = samples(strategy.pick())
        number = 0
        while in_flight:
            answer = cast[number]
            if answer is not None:
                early[answer] = early.get(answer, 0.0) + (weights or {}).get(answer, 1.0)
            strategy.record(branch(number, answer))
            number += 1
            more = samples(strategy.pick())
            drawn, in_flight = drawn + more, in_flight - 1 + more
        saved += 12 - drawn
        if drawn < 12:
            assert max(early, key=lambda each: early[each]) == max(
                totals, key=lambda each: totals[each]
            )
    assert saved > 300
