"""Branches that wait for verdicts between the engine and the strategy."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from stepback_core.schemas import StopReason
from stepback_server.engine.base import SampleRequest
from stepback_server.search.appraisal import Appraise
from stepback_server.search.loop import Limits, Search, Searched
from stepback_server.search.sampling import Independent
from stepback_server.search.tree import Branch
from tests.server.search.scripted import END, GRAMMAR, NEWLINE, ScriptedEngine

FOREVER = 3600.0


def answers(request: SampleRequest, index: int) -> tuple[int, ...]:
    return (10 + index, NEWLINE, END)


class Appraiser:
    """Says of each branch that it is worth 1, after a while; keeps what it was handed."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self.calls: list[list[int]] = []
        self.at_work = self.most_at_work = 0
        self.known: set[int] = set()
        self.begun = asyncio.Event()

    async def __call__(self, branches: Sequence[Branch], hurry: asyncio.Event) -> Sequence[Branch]:
        self.calls.append([branch.number for branch in branches])
        self.at_work += 1
        self.begun.set()
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            async with asyncio.timeout(self._seconds):
                await hurry.wait()
        except TimeoutError:
            self.known |= {branch.number for branch in branches}
        finally:
            self.at_work -= 1
        return branches


def run(
    appraise: Appraise,
    *,
    n: int = 8,
    delay: float = 0.0,
    tokens: int = 10_000,
    seconds: float = FOREVER,
    seed: int | None = None,
    win: int | None = None,
    known: set[int] | None = None,
) -> Searched:
    search = Search(
        engine=ScriptedEngine(answers, delay=delay),
        strategy=Independent(n, 0.7, widening=True),
        grammar=GRAMMAR,
        prompt_ids=(7, 8),
        limits=Limits(tokens=tokens, seconds=seconds, tokens_per_branch=20),
        seed=seed,
        is_win=lambda branch: branch.number == win and (known is None or win in known),
        appraise=appraise,
    )
    return asyncio.run(search.run())


def unbounded(strategy: Independent, appraise: Appraise) -> Search:
    """A search that neither a deadline nor a win ends."""
    return Search(
        engine=ScriptedEngine(answers),
        strategy=strategy,
        grammar=GRAMMAR,
        prompt_ids=(7, 8),
        limits=Limits(tokens=100, seconds=FOREVER, tokens_per_branch=20),
        seed=None,
        is_win=lambda branch: False,
        appraise=appraise,
    )


def test_every_branch_is_appraised_before_it_counts() -> None:
    appraiser = Appraiser(0.01)
    searched = run(appraiser, seed=1)
    assert searched.stop_reason is StopReason.EXHAUSTED
    assert sorted(number for call in appraiser.calls for number in call) == list(range(8))
    assert [branch.number for branch in searched.tree.branches] == list(range(8))


def test_what_comes_during_a_call_goes_into_the_next_and_no_two_overlap() -> None:
    appraiser = Appraiser(0.05)
    run(appraiser, n=24)
    assert appraiser.most_at_work == 1
    assert max(len(call) for call in appraiser.calls) > 1


def test_the_search_ends_at_the_win_that_an_appraisal_makes_known() -> None:
    appraiser = Appraiser(0.01)
    searched = run(appraiser, win=3, known=appraiser.known)
    assert searched.stop_reason is StopReason.SOLVED
    assert searched.tree.branches[-1].number == 3


def test_the_deadline_does_not_wait_for_a_verdict_and_keeps_the_answer() -> None:
    appraiser = Appraiser(FOREVER)
    searched = run(appraiser, n=1, seconds=0.2)
    assert searched.stop_reason is StopReason.DEADLINE
    assert len(searched.tree.answers) == 1 and not appraiser.known


@pytest.mark.parametrize("seed", [None, 1])
def test_the_last_answers_of_a_token_budget_still_get_their_verdicts(seed: int | None) -> None:
    appraiser = Appraiser(0.05)
    searched = run(appraiser, tokens=6, seed=seed)
    assert searched.stop_reason is StopReason.TOKEN_BUDGET
    assert appraiser.known == {branch.number for branch in searched.tree.branches}
    assert len(searched.tree.answers) == 2


def test_the_deadline_holds_after_the_token_budget_too() -> None:
    appraiser = Appraiser(FOREVER)
    searched = run(appraiser, tokens=3, seconds=0.3)
    assert searched.seconds < 60
    assert len(searched.tree.answers) == 1


def test_a_defect_of_the_appraiser_ends_the_search_with_its_error() -> None:
    async def broken(branches: Sequence[Branch], hurry: asyncio.Event) -> Sequence[Branch]:
        raise LookupError("a defect")

    with pytest.raises(LookupError, match="a defect"):
        run(broken)


def test_a_caller_who_hangs_up_leaves_no_appraisal_at_work() -> None:
    appraiser = Appraiser(FOREVER)

    async def hang_up() -> None:
        task = asyncio.create_task(unbounded(Independent(1, 0.7), appraiser).run())
        await appraiser.begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(hang_up())
    assert appraiser.at_work == 0


def test_the_strategy_sees_what_was_said_of_a_branch() -> None:
    seen: list[Branch] = []

    async def mark(branches: Sequence[Branch], hurry: asyncio.Event) -> Sequence[Branch]:
        return [replace(branch, marker_logprobs=(-1.0,)) for branch in branches]

    class Watching(Independent):
        def record(self, branch: Branch) -> Branch:
            seen.append(branch)
            return super().record(branch)

    asyncio.run(unbounded(Watching(2, 0.7), mark).run())
    assert [branch.marker_logprobs for branch in seen] == [(-1.0,), (-1.0,)]
