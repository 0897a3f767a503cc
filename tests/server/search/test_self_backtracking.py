"""The published rule and the baselines, on hand-made branches."""

from dataclasses import replace
from random import Random
from typing import Any

from stepback_core.schemas import Outcome, Rollback
from stepback_server.engine.base import Finish, Sample
from stepback_server.search.beam import Beam
from stepback_server.search.sampling import Independent
from stepback_server.search.self_backtracking import SelfBacktracking
from stepback_server.search.strategy import Expansion
from stepback_server.search.tree import Branch, State
from tests.server.search.scripted import END, GRAMMAR, MARKER, NEWLINE


def published(breadth: int, backtracks: int, **options: Any) -> SelfBacktracking:
    """The published rule over independent samples."""

    def sampler(state: State) -> Independent:
        return Independent(breadth, 0.7, state=state)

    return SelfBacktracking(breadth, backtracks, GRAMMAR, sampler, **options)


def branch(number: int, state: State, *ids: int) -> Branch:
    sample = Sample(
        index=0, ids=ids, logprobs=(-1.0,) * len(ids), finish=Finish.STOP, cached_tokens=0
    )
    outcome = Outcome.BACKTRACK if ids[-1] == MARKER else Outcome.ANSWER
    return Branch(number, state, sample, outcome)


def rejected(number: int, first: int, state: State = State()) -> Branch:  # noqa: B008
    """One good step that starts with `first`, one bad step, the marker."""
    return branch(number, state, first, NEWLINE, 99, NEWLINE, MARKER)


def finish(strategy: SelfBacktracking, numbers: range) -> None:
    """End the rest of a round in answers."""
    for number in numbers:
        strategy.record(branch(number, State(), 10, NEWLINE, END))


def states(expansions: list[Expansion]) -> list[tuple[int, ...]]:
    return [expansion.state.ids for expansion in expansions]


def test_it_samples_n_from_the_prompt_first() -> None:
    strategy = published(16, 1)
    assert strategy.pick() == [Expansion(State(), 16, 0.7)]


def test_it_expands_at_most_sqrt_n_states_a_round() -> None:
    strategy = published(10, 1)
    strategy.pick()
    for number in range(10):
        strategy.record(rejected(number, 10 + number))
    assert states(strategy.pick()) == [(10, NEWLINE), (11, NEWLINE), (12, NEWLINE)]


def test_the_first_asked_win_whatever_order_they_end_in() -> None:
    strategy = published(4, 1)
    strategy.pick()
    for number in (3, 1, 2, 0):
        strategy.record(rejected(number, 10 + number))
    assert states(strategy.pick()) == [(10, NEWLINE), (11, NEWLINE)]


def test_a_visited_state_is_not_expanded_again() -> None:
    strategy = published(16, 2)
    strategy.pick()
    strategy.record(branch(0, State(), 99, NEWLINE, MARKER))  # back to the prompt
    strategy.record(rejected(1, 10))
    strategy.record(rejected(2, 10))
    finish(strategy, range(3, 16))
    [expansion] = strategy.pick()
    assert expansion.state.ids == (10, NEWLINE)
    # One step deeper, and rejected back to where it already was.
    strategy.record(branch(16, expansion.state, 98, NEWLINE, MARKER))
    finish(strategy, range(17, 32))
    assert strategy.pick() == []


def test_a_rollback_repeated_goes_deeper() -> None:
    strategy = published(4, 3)
    strategy.pick()
    strategy.record(branch(0, State(), 10, NEWLINE, 11, NEWLINE, 99, NEWLINE, MARKER))
    finish(strategy, range(1, 4))
    [two_steps] = strategy.pick()
    assert two_steps.state.ids == (10, NEWLINE, 11, NEWLINE)
    # The model rejects step 11 at once: the marker follows a kept step, which is dropped too.
    strategy.record(branch(4, two_steps.state, MARKER))
    finish(strategy, range(5, 8))
    [one_step] = strategy.pick()
    assert one_step.state.ids == (10, NEWLINE)


def test_the_kept_part_keeps_its_log_probabilities() -> None:
    kept = rejected(0, 10).roll_back(GRAMMAR)
    assert (kept.ids, kept.logprobs, kept.branch) == ((10, NEWLINE), (-1.0, -1.0), 0)


def test_without_backtracks_there_is_one_round() -> None:
    strategy = published(4, 0)
    assert len(strategy.pick()) == 1
    for number in range(4):
        strategy.record(rejected(number, 10))
    assert strategy.pick() == []


def test_a_round_waits_for_all_of_its_samples() -> None:
    strategy = published(4, 1)
    strategy.pick()
    for number in range(3):
        strategy.record(rejected(number, 10 + number))
        assert strategy.pick() == []
    strategy.record(rejected(3, 13))
    assert len(strategy.pick()) == 2


def test_answers_alone_end_the_search() -> None:
    strategy = published(4, 5)
    strategy.pick()
    finish(strategy, range(4))
    assert strategy.pick() == []


def scored(number: int, first: int, logprob: float) -> Branch:
    rolled = rejected(number, first)
    sample = replace(rolled.sample, logprobs=(logprob,) * len(rolled.sample.ids))
    return replace(rolled, sample=sample)


def test_the_likeliest_are_rolled_back_first_where_samples_are_ranked() -> None:
    strategy = published(4, 1, best_first=True)
    strategy.pick()
    for number, logprob in enumerate((-3.0, -1.0, -4.0, -2.0)):
        strategy.record(scored(number, 10 + number, logprob))
    assert states(strategy.pick()) == [(11, NEWLINE), (13, NEWLINE)]


def test_a_scorers_word_on_what_is_kept_counts_too() -> None:
    strategy = published(4, 1, best_first=True)
    strategy.pick()
    for number, logprob in enumerate((-3.0, -1.0, -4.0, -2.0)):
        branch = scored(number, 10 + number, logprob)
        strategy.record(replace(branch, bonuses=((2, -5.0 if number == 1 else 0.0),)))
    assert states(strategy.pick()) == [(13, NEWLINE), (10, NEWLINE)]


LONG = (10, NEWLINE, 11, NEWLINE, 12, NEWLINE, 99, NEWLINE)


def test_a_random_step_is_one_of_those_before_the_last() -> None:
    kept: set[tuple[int, ...]] = set()
    for seed in range(40):
        strategy = published(1, 1, rollback=Rollback.RANDOM_STEP, random=Random(seed))
        strategy.pick()
        strategy.record(branch(0, State(), *LONG, MARKER))
        kept.update(states(strategy.pick()))
    assert kept == {LONG[:2], LONG[:4], LONG[:6]}


def test_random_steps_of_the_marker_need_a_marker() -> None:
    strategy = published(4, 1, rollback=Rollback.RANDOM_STEP, random=Random(0))
    strategy.pick()
    finish(strategy, range(4))
    assert strategy.pick() == []


def test_random_branches_are_rolled_back_without_any_marker() -> None:
    kept: set[tuple[int, ...]] = set()
    for seed in range(40):
        strategy = published(4, 1, rollback=Rollback.RANDOM_BRANCH, random=Random(seed))
        strategy.pick()
        for number in range(4):
            strategy.record(branch(number, State(), 20 + number, *LONG, END))
        kept.update(found := states(strategy.pick()))
        assert len(found) == 2
    assert {ids[0] for ids in kept} == {20, 21, 22, 23}
    assert max(len(ids) for ids in kept) == len(LONG) - 1


def test_a_random_rollback_is_the_same_for_the_same_seed() -> None:
    def kept() -> list[tuple[int, ...]]:
        strategy = published(4, 1, rollback=Rollback.RANDOM_BRANCH, random=Random(5))
        strategy.pick()
        for number in range(4):
            strategy.record(branch(number, State(), 20 + number, *LONG, END))
        return states(strategy.pick())

    assert kept() == kept()


def test_a_round_of_beams_waits_for_all_of_them() -> None:
    """Each beam asks for its next text as its own ends; the round is over when both have ended."""

    def sampler(state: State) -> Beam:
        return Beam(state, 4, 1.0, GRAMMAR, max_tokens=20, random=Random(1))

    strategy = SelfBacktracking(4, 1, GRAMMAR, sampler, best_first=True)
    [expansion] = strategy.pick()
    told = ((30, -2.0),), ((31, -2.0),)
    first = rejected(0, 10)
    sample = replace(first.sample, alternatives=(*told, *((),) * 3))
    strategy.record(replace(first, sample=sample))
    [second] = strategy.pick()
    assert second.state.ids in ((30,), (10, 31)) and expansion.state.ids == ()
    strategy.record(branch(1, second.state, NEWLINE, MARKER))
    [third] = strategy.pick()
    assert third.state.ids in ((30,), (10, 31), (10, NEWLINE))
