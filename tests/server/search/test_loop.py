"""The loop: exact budgets, deadlines, early wins, cancellation, faults."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from stepback_core.schemas import Outcome, StopReason
from stepback_server.engine.base import (
    Engine,
    EngineUnavailable,
    Finish,
    OnSample,
    Sample,
    SampleRequest,
)
from stepback_server.search.loop import Limits, Search, Searched
from stepback_server.search.sampling import Independent
from stepback_server.search.strategy import Expansion, SearchStrategy
from stepback_server.search.tree import Branch
from tests.server.keeping import charged as charged_engine
from tests.server.search.scripted import END, GRAMMAR, MARKER, NEWLINE, Script, ScriptedEngine
from tests.server.search.test_self_backtracking import published

ANSWER = (10, NEWLINE, END)


def always(*ids: int) -> Script:
    return lambda request, index: ids


def search(
    engine: Engine,
    strategy: SearchStrategy,
    *,
    tokens: int = 10_000,
    seconds: float = 10.0,
    is_win: Callable[[Branch], bool] = lambda branch: False,
    seed: int | None = None,
) -> Search:
    return Search(
        engine=engine,
        strategy=strategy,
        grammar=GRAMMAR,
        prompt_ids=(7, 8),
        limits=Limits(tokens=tokens, seconds=seconds, tokens_per_branch=20),
        seed=seed,
        is_win=is_win,
    )


def run(searching: Search) -> Searched:
    return asyncio.run(searching.run())


def test_it_ends_exhausted_with_every_branch_in_the_tree() -> None:
    searched = run(search(ScriptedEngine(always(*ANSWER)), Independent(8, 0.7)))
    assert searched.stop_reason is StopReason.EXHAUSTED
    assert len(searched.tree.answers) == searched.spent.requests == 8
    assert searched.spent.generated == 24


@pytest.mark.parametrize("tokens", [1, 2, 5, 19, 20, 21, 39, 100, 239, 240, 241])
@pytest.mark.parametrize("length", [3, 20, 60])
def test_a_token_budget_is_never_exceeded_not_even_by_what_is_in_flight(
    tokens: int, length: int
) -> None:
    engine = ScriptedEngine(always(*([10] * (length - 1)), END), delay=0.0001)
    searched = run(search(engine, Independent(12, 0.7), tokens=tokens))
    assert searched.spent.generated <= tokens
    assert engine.most_promised <= tokens
    in_full = 12 * min(length, 20) <= tokens
    assert searched.stop_reason is (StopReason.EXHAUSTED if in_full else StopReason.TOKEN_BUDGET)
    if not in_full:
        assert searched.spent.generated == tokens


def test_a_budget_is_shared_by_the_expansions_of_a_round() -> None:
    def script(request: SampleRequest, index: int) -> tuple[int, ...]:
        return (10 + index, NEWLINE, 99, NEWLINE, MARKER)

    engine = ScriptedEngine(script, delay=0.0001)
    searched = run(search(engine, published(9, 3), tokens=101))
    assert searched.spent.generated == 101
    assert engine.most_promised <= 101
    assert searched.stop_reason is StopReason.TOKEN_BUDGET


def test_a_deadline_returns_what_there_is() -> None:
    engine = ScriptedEngine(always(*ANSWER), delay=0.02)
    searching = search(engine, Independent(50, 0.7), seconds=0.1)
    searched = run(searching)
    assert searched.stop_reason is StopReason.DEADLINE
    assert 0 < len(searched.tree.answers) < 50
    assert engine.active == searching.in_flight == 0


def test_a_win_stops_the_rest() -> None:
    engine = ScriptedEngine(always(*ANSWER), delay=0.001)
    searched = run(
        search(engine, Independent(50, 0.7), is_win=lambda branch: branch.outcome is Outcome.ANSWER)
    )
    assert searched.stop_reason is StopReason.SOLVED
    assert len(searched.tree.answers) == 1
    assert len(searched.tree.branches) == 1
    assert searched.spent.requests == 50


def test_cancelling_a_search_frees_the_engine() -> None:
    async def hang_up() -> int:
        engine = ScriptedEngine(always(*ANSWER), delay=0.01)
        task = asyncio.create_task(search(engine, Independent(50, 0.7)).run())
        await asyncio.sleep(0.03)
        assert engine.active > 0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return engine.active

    assert asyncio.run(hang_up()) == 0


def test_an_engine_fault_reaches_the_caller_as_itself() -> None:
    class Dead(ScriptedEngine):
        async def sample(
            self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample
        ) -> None:
            raise EngineUnavailable("the engine has died")

    with pytest.raises(EngineUnavailable, match="has died"):
        run(search(Dead(always(*ANSWER)), Independent(4, 0.7)))


def test_each_sample_has_a_seed_of_its_own_and_the_same_one_every_time() -> None:
    def seeds() -> list[int]:
        engine = ScriptedEngine(always(10, NEWLINE, 99, NEWLINE, MARKER))
        run(search(engine, published(4, 1), seed=2**31 - 2))
        return [seed for request in engine.requests for seed in request.seeds or ()]

    assert seeds() == seeds()
    assert len(set(seeds())) == len(seeds()) == 8


def test_searches_with_neighbouring_seeds_share_no_sample() -> None:
    def seeds(seed: int) -> set[int]:
        engine = ScriptedEngine(always(*ANSWER))
        run(search(engine, Independent(64, 0.7), seed=seed))
        return set(engine.requests[0].seeds or ())

    assert not seeds(1) & seeds(2)


def test_what_samples_return_to_a_budget_is_spent_at_once() -> None:
    engine = ScriptedEngine(always(*ANSWER), delay=0.001)
    searched = run(search(engine, Independent(30, 0.7), tokens=100))
    # 5 branches are paid in full at first; each returns 17 of its 20 tokens as it ends.
    assert len(searched.tree.answers) == 30
    assert engine.most_active >= 5
    assert engine.most_promised <= 100


@pytest.mark.parametrize("while_it_ends", [False, True])
def test_what_a_search_had_generated_when_its_caller_left_is_counted(while_it_ends: bool) -> None:
    """Each of four samples takes 20 ms; he leaves after the first."""
    charged: list[Sample] = []
    first = asyncio.Event()

    def charge(sample: Sample) -> None:
        charged.append(sample)
        first.set()

    async def scenario() -> None:
        engine = ScriptedEngine(always(*ANSWER), delay=0.02)
        searching = search(charged_engine(engine, charge), Independent(4, 0.7))
        task = asyncio.create_task(searching.run())
        await first.wait()
        task.cancel()
        if while_it_ends:
            await asyncio.sleep(0)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert engine.active == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())
    assert len(charged) == (1 if while_it_ends else 4)


class RefusingEngine(ScriptedEngine):
    """Takes one request, and refuses each further one."""

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        if self.requests:
            raise EngineUnavailable("it is full")
        await super().sample(request, stop, deliver)


class TwoRounds(Independent):
    """Asks for everything twice, at once."""

    def pick(self) -> list[Expansion]:
        return 2 * super().pick()


def test_what_a_search_had_generated_when_it_failed_is_counted() -> None:
    charged: list[Sample] = []

    async def scenario() -> None:
        engine = RefusingEngine(always(*ANSWER), delay=0.01)
        with pytest.raises(EngineUnavailable, match="it is full"):
            await search(charged_engine(engine, charged.append), TwoRounds(4, 0.7)).run()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())
    assert len(charged) == 4


class DeafEngine(ScriptedEngine):
    """Neither stops nor ends; knows whether it was cancelled."""

    was_cancelled = False

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.was_cancelled = True


def test_an_engine_that_does_not_stop_is_left_after_a_second() -> None:
    async def scenario() -> None:
        deaf = DeafEngine(always())
        task = asyncio.create_task(search(deaf, Independent(4, 0.7)).run())
        await asyncio.sleep(0.01)
        task.cancel()
        async with asyncio.timeout(120):
            with pytest.raises(asyncio.CancelledError):
                await task
        assert deaf.was_cancelled
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())


def test_a_cancelled_search_answers_with_what_it_has() -> None:
    async def scenario() -> Searched:
        engine = ScriptedEngine(always(*ANSWER), delay=0.01)
        searching = search(engine, Independent(50, 0.7))
        asyncio.get_running_loop().call_later(0.05, searching.cancel)
        return await searching.run()

    searched = asyncio.run(scenario())
    assert searched.stop_reason is StopReason.CANCELLED
    assert 0 < len(searched.tree.answers) < 50


def test_the_engine_is_asked_for_the_prompt_and_what_was_kept() -> None:
    engine = ScriptedEngine(always(10, NEWLINE, 99, NEWLINE, MARKER))
    run(search(engine, published(4, 1)))
    assert [request.ids for request in engine.requests] == [(7, 8), (7, 8, 10, NEWLINE)]
    assert engine.requests[0].max_tokens == 20
    assert engine.requests[1].max_tokens == 18


class LosingEngine(ScriptedEngine):
    """Loses some continuations of each of its first requests, with all that they may have cost."""

    def __init__(self, script: Script, *lost: set[int]) -> None:
        super().__init__(script)
        self._lost = list(lost)

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        lost = self._lost.pop(0) if self._lost else set[int]()

        def lose(sample: Sample) -> None:
            if sample.index in lost:
                sample = replace(
                    sample,
                    ids=(),
                    logprobs=(),
                    finish=Finish.LOST,
                    unseen_tokens=request.max_tokens,
                )
            deliver(sample)

        await super().sample(request, stop, lose)


@pytest.mark.parametrize("seed", [None, 1])
def test_what_an_engine_lost_is_paid_for_and_asked_for_again_by_the_same_seed(
    seed: int | None,
) -> None:
    engine = LosingEngine(always(*ANSWER), {0, 2}, {1})
    searched = run(search(engine, Independent(4, 0.7), seed=seed))
    assert searched.stop_reason is StopReason.EXHAUSTED
    assert [branch.number for branch in searched.tree.answers] == [0, 1, 2, 3]
    assert searched.spent.requests == 4 + 2 + 1
    assert searched.spent.generated == 4 * 3 + 3 * 20
    if seed is not None:
        first, second, third = (request.seeds for request in engine.requests)
        assert first and second == (first[0], first[2]) and third == (first[2],)


@pytest.mark.parametrize("seed", [None, 1])
def test_what_was_paid_for_counts_where_the_budget_has_nothing_left_for_what_was_lost(
    seed: int | None,
) -> None:
    engine = LosingEngine(always(*([10] * 19), END), {0})
    searched = run(search(engine, Independent(4, 0.7), tokens=80, seed=seed))
    assert searched.stop_reason is StopReason.TOKEN_BUDGET
    assert [branch.number for branch in searched.tree.answers] == [1, 2, 3]
    assert searched.spent.generated == 80
