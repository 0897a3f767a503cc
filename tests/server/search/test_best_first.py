"""Best-first search, on a model that is written down."""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import pytest

from stepback_core.schemas import Outcome, StopReason
from stepback_server.engine.base import OnSample, SampleRequest
from stepback_server.search.appraisal import Appraise
from stepback_server.search.best_first import BestFirst, BestFirstConfig
from stepback_server.search.loop import Limits, Search, Searched
from stepback_server.search.strategy import StateView
from stepback_server.search.tree import Branch
from tests.server.search.scripted import END, GRAMMAR, MARKER, NEWLINE
from tests.server.search.toy_model import Table, ToyEngine

PROMPT = (7, 8)
A, B, C, D = 10, 11, 12, 13

# One token and its separator are a step. A is likeliest and leads to what the model rejects; D is
# unlikely and right.
TABLE: Table = {
    (): {A: 0.5, B: 0.3, C: 0.15, D: 0.05},
    (A, NEWLINE): {MARKER: 0.8, A: 0.12, B: 0.08},
    (B, NEWLINE): {A: 0.6, C: 0.25, END: 0.15},
    (B, NEWLINE, C): {NEWLINE: 1.0},
    (B, NEWLINE, A, NEWLINE): {END: 1.0},
    (A, NEWLINE, B, NEWLINE): {END: 0.6, D: 0.4},
    (C, NEWLINE): {END: 0.9, A: 0.1},
    (A,): {NEWLINE: 1.0},
    (B,): {NEWLINE: 1.0},
    (C,): {NEWLINE: 1.0},
    (D,): {NEWLINE: 1.0},
    (A, NEWLINE, A): {NEWLINE: 1.0},
    (A, NEWLINE, B): {NEWLINE: 1.0},
    (B, NEWLINE, A): {NEWLINE: 1.0},
}


class View:
    """Steps in `illegal` are illegal; states are the same whatever the order of their steps."""

    def __init__(self, *illegal: int) -> None:
        self._illegal = illegal

    def state(self, ids: Sequence[int]) -> Hashable | None:
        steps = [token for token in ids if token not in (NEWLINE, END)]
        return None if set(steps) & set(self._illegal) else tuple(sorted(steps))


def search(
    view: StateView | None = None,
    *,
    config: BestFirstConfig = BestFirstConfig(),  # noqa: B008
    breadth: int = 4,
    enough: int | None = None,
    tokens: int = 1000,
    order: int = 0,
    table: Table = TABLE,
    is_win: Callable[[Branch], bool] = lambda branch: False,
    seed: int | None = 0,
    engine: ToyEngine | None = None,
    appraise: Appraise | None = None,
) -> tuple[Searched, ToyEngine]:
    engine = engine or ToyEngine(table, PROMPT, END, order)
    strategy = BestFirst(breadth, GRAMMAR, view, longest=20, enough=enough, config=config)
    searching = Search(
        engine=engine,
        strategy=strategy,
        grammar=GRAMMAR,
        prompt_ids=PROMPT,
        limits=Limits(tokens=tokens, seconds=10, tokens_per_branch=20),
        seed=seed,
        is_win=is_win,
        appraise=appraise,
    )
    return asyncio.run(searching.run()), engine


def starts(searched: Searched) -> list[tuple[int, ...]]:
    return [branch.state.ids for branch in searched.tree.branches]


def ends(token: int) -> Callable[[Branch], bool]:
    return lambda branch: branch.outcome is Outcome.ANSWER and branch.ids[0] == token


class StalledEngine(ToyEngine):
    """Its second sample does not end until it is aborted."""

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        if len(self.requests) == 1:
            self.requests.append(request)
            await stop.wait()
            deliver(self.aborted())
            return
        await super().sample(request, stop, deliver)


def test_a_win_does_not_wait_for_a_branch_that_was_asked_for_before_it() -> None:
    engine = StalledEngine(TABLE, PROMPT, END)
    config = BestFirstConfig(widening=False)
    searched, _ = search(engine=engine, seed=None, config=config, is_win=ends(C))
    assert searched.stop_reason is StopReason.SOLVED and searched.seconds < 5


def test_the_first_continuation_is_the_greedy_answer() -> None:
    searched, engine = search()
    first = searched.tree.branches[0]
    assert first.ids == (A, NEWLINE, MARKER)
    assert engine.requests[0].temperature == 0


def test_the_likeliest_turn_comes_next_and_the_markers_share_is_not_its() -> None:
    searched, _ = search()
    # B has 0.3, C 0.15, and going on behind the marker 0.5 x 0.12 and 0.5 x 0.08.
    assert starts(searched)[:4] == [(), (B,), (C,), (B, NEWLINE, C)]
    assert starts(searched)[4:7] == [(A, NEWLINE, A), (D,), (B, NEWLINE, END)]
    assert starts(searched)[7] == (A, NEWLINE, B)


def test_no_text_is_written_twice() -> None:
    searched, _ = search()
    texts = [branch.ids for branch in searched.tree.branches]
    assert len(set(texts)) == len(texts)
    assert searched.stop_reason is StopReason.EXHAUSTED


def test_nothing_is_followed_behind_an_illegal_step() -> None:
    searched, _ = search(View(B))
    assert (A, NEWLINE, A) in starts(searched)
    assert (A, NEWLINE, B) in starts(searched)
    assert not any(start[:2] == (B, NEWLINE) for start in starts(searched))


def test_a_state_that_another_path_reached_is_not_followed() -> None:
    searched, _ = search(View())
    with_both = [ids for branch in searched.tree.branches if {A, B} <= set(ids := branch.ids)]
    assert with_both[0][:3] == (B, NEWLINE, A)
    assert len(with_both) == 2  # the second is seen to be the same, and left there


def test_an_easy_problem_costs_one_continuation() -> None:
    searched, engine = search(breadth=16, is_win=lambda branch: True)
    assert searched.stop_reason is StopReason.SOLVED
    assert len(engine.requests) == len(searched.tree.branches) == 1


def test_without_a_check_it_ends_with_enough_answers() -> None:
    searched, _ = search(enough=2)
    assert searched.stop_reason is StopReason.EXHAUSTED
    assert len(searched.tree.answers) >= 2
    assert len(searched.tree.branches) < len(search()[0].tree.branches)


@pytest.mark.parametrize(
    "config", [BestFirstConfig(), BestFirstConfig(widening=False), BestFirstConfig(chunk_tokens=1)]
)
def test_the_tree_does_not_depend_on_what_ends_first(config: BestFirstConfig) -> None:
    trees = [search(View(C), order=order, config=config, is_win=ends(D))[0] for order in range(12)]
    assert trees[0].stop_reason is StopReason.SOLVED
    assert all(each.tree == trees[0].tree for each in trees)


def answers(searched: Searched) -> set[tuple[int, ...]]:
    """The states that answers end in."""
    return {tuple(sorted(branch.ids)) for branch in searched.tree.answers}


@pytest.mark.parametrize("view", [None, View(), View(C)])
@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_an_answer_in_chunks_is_the_same_answer(chunk: int, view: View | None) -> None:
    whole, _ = search(view, config=BestFirstConfig())
    chunked, _ = search(view, config=BestFirstConfig(chunk_tokens=chunk))
    assert answers(chunked) == answers(whole)


def test_stopping_at_steps_writes_nothing_behind_an_illegal_one() -> None:
    searched, _ = search(View(A), config=BestFirstConfig(stop_at_steps=True))
    assert all(branch.ids[0] != A or len(branch.ids) == 2 for branch in searched.tree.branches)
    assert any(branch.ids[-1] == END for branch in searched.tree.branches)


@pytest.mark.parametrize("tokens", range(1, 30))
def test_the_budget_is_exact(tokens: int) -> None:
    searched, _ = search(tokens=tokens)
    in_full = search()[0].spent.generated
    assert searched.spent.generated == min(tokens, in_full)
    expected = StopReason.TOKEN_BUDGET if tokens < in_full else StopReason.EXHAUSTED
    assert searched.stop_reason is expected


def test_tokens_that_the_search_chose_were_not_generated() -> None:
    searched, _ = search()
    for branch in searched.tree.branches:
        assert branch.generated == len(branch.ids) - len(branch.state.chosen)
    turned = next(branch for branch in searched.tree.branches if branch.state.ids == (D,))
    assert (turned.state.chosen, turned.generated) == ((0,), 2)


def test_each_idea_can_be_turned_off() -> None:
    everything = BestFirstConfig()
    plain = starts(search(View(C))[0])
    for off in ("legality", "merging", "likeliest_first", "marker", "widening"):
        without = replace(everything, **{off: False})
        assert starts(search(View(C), config=without)[0]) != plain, off


def test_an_illegal_step_is_what_a_branch_is_said_to_end_in() -> None:
    searched, _ = search(View(A))
    first = searched.tree.branches[0]
    assert (first.outcome, first.shown_ids) == (Outcome.ILLEGAL, (A, NEWLINE))
    assert first.ids == (A, NEWLINE, MARKER)
    assert all(A not in branch.ids for branch in searched.tree.answers)


def test_a_turn_to_the_end_is_an_answer_that_costs_nothing() -> None:
    searched, engine = search()
    [free] = [branch for branch in searched.tree.answers if not branch.sample.ids]
    assert (free.ids, free.generated) == ((B, NEWLINE, END), 1)
    assert all(request.ids[-1] != END for request in engine.requests)


def test_a_long_answer_in_chunks_stays_one_continuation_at_a_time() -> None:
    text = [(A, NEWLINE)] * 9
    flat = [token for step in text for token in step]
    table: Table = {
        **{tuple(flat[:length]): {flat[length]: 0.9, B: 0.1} for length in range(len(flat))},
        tuple(flat): {END: 1.0},
    }
    searched, engine = search(
        table=table,
        config=BestFirstConfig(chunk_tokens=2),
        breadth=16,
        is_win=lambda branch: ends(A)(branch),
    )
    assert searched.stop_reason is StopReason.SOLVED
    assert len(engine.requests) == 10


def test_a_state_is_reached_anew_by_a_shorter_way() -> None:
    class LastStep(View):
        def state(self, ids: Sequence[int]) -> Hashable | None:
            return ids[-2] if len(ids) > 1 else ids

    table: Table = {
        (): {A: 0.9, C: 0.1},
        (A,): {NEWLINE: 1.0},
        (A, NEWLINE): {B: 1.0},
        (A, NEWLINE, B): {NEWLINE: 1.0},
        (A, NEWLINE, B, NEWLINE): {C: 1.0},
        (A, NEWLINE, B, NEWLINE, C): {NEWLINE: 1.0},
        (A, NEWLINE, B, NEWLINE, C, NEWLINE): {A: 0.6, D: 0.4},
        (C,): {NEWLINE: 1.0},
        (C, NEWLINE): {A: 0.6, D: 0.4},
    }
    searched, _ = search(LastStep(), table=table)
    assert (C, NEWLINE, D) in starts(searched)


def test_an_answer_that_was_reached_before_counts_where_answers_end_the_search() -> None:
    class OneState(View):
        def state(self, ids: Sequence[int]) -> Hashable | None:
            return ()

    searched, _ = search(OneState(), enough=2)
    assert searched.stop_reason is StopReason.EXHAUSTED
    assert len(searched.tree.answers) >= 2


def test_an_engine_that_tells_no_alternatives_gives_the_greedy_answer() -> None:
    searched, _ = search(config=BestFirstConfig(alternatives=0))
    assert [branch.ids for branch in searched.tree.branches] == [(A, NEWLINE, MARKER)]


def test_a_scorers_word_on_the_steps_before_a_turn_moves_its_turn() -> None:
    async def appraise(branches: Sequence[Branch], hurry: asyncio.Event) -> Sequence[Branch]:
        return [
            replace(branch, bonuses=((2, -9.0 if branch.ids[0] == B else 0.0),))
            for branch in branches
        ]

    plain, scored = search()[0], search(appraise=appraise)[0]
    within_b = (B, NEWLINE, C)
    assert starts(plain).index(within_b) < starts(plain).index((D,))
    assert starts(scored).index((D,)) < starts(scored).index(within_b)
