"""The published rule and the baselines, on hand-made branches."""

from stepback_core.schemas import Outcome
from stepback_server.engine.base import Finish, Sample
from stepback_server.search.self_backtracking import OneRound, SelfBacktracking
from stepback_server.search.strategy import Expansion
from stepback_server.search.tree import Branch, State
from tests.server.search.scripted import END, GRAMMAR, MARKER, NEWLINE


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
    strategy = SelfBacktracking(16, 1, 0.7, GRAMMAR)
    assert strategy.pick() == [Expansion(State(), 16, 0.7)]


def test_it_expands_at_most_sqrt_n_states_a_round() -> None:
    strategy = SelfBacktracking(10, 1, 0.7, GRAMMAR)
    strategy.pick()
    for number in range(10):
        strategy.record(rejected(number, 10 + number))
    assert states(strategy.pick()) == [(10, NEWLINE), (11, NEWLINE), (12, NEWLINE)]


def test_the_first_asked_win_whatever_order_they_end_in() -> None:
    strategy = SelfBacktracking(4, 1, 0.7, GRAMMAR)
    strategy.pick()
    for number in (3, 1, 2, 0):
        strategy.record(rejected(number, 10 + number))
    assert states(strategy.pick()) == [(10, NEWLINE), (11, NEWLINE)]


def test_a_visited_state_is_not_expanded_again() -> None:
    strategy = SelfBacktracking(16, 2, 0.7, GRAMMAR)
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
    strategy = SelfBacktracking(4, 3, 0.7, GRAMMAR)
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
    strategy = SelfBacktracking(4, 0, 0.7, GRAMMAR)
    assert len(strategy.pick()) == 1
    for number in range(4):
        strategy.record(rejected(number, 10))
    assert strategy.pick() == []


def test_a_round_waits_for_all_of_its_samples() -> None:
    strategy = SelfBacktracking(4, 1, 0.7, GRAMMAR)
    strategy.pick()
    for number in range(3):
        strategy.record(rejected(number, 10 + number))
        assert strategy.pick() == []
    strategy.record(rejected(3, 13))
    assert len(strategy.pick()) == 2


def test_answers_alone_end_the_search() -> None:
    strategy = SelfBacktracking(4, 5, 0.7, GRAMMAR)
    strategy.pick()
    finish(strategy, range(4))
    assert strategy.pick() == []


def test_the_baselines_sample_once() -> None:
    strategy = OneRound(8, 0.7)
    assert strategy.pick() == [Expansion(State(), 8, 0.7)]
    strategy.record(rejected(0, 10))
    assert strategy.pick() == []
