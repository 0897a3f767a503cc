"""The search loop: pick, expand, record. With appraisal.py it is what waits for anything."""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stepback_core.schemas import StopReason
from stepback_core.trace import TokenGrammar
from stepback_server.concurrency import task_group
from stepback_server.engine.base import EMPTY_SAMPLE, Engine, EngineError, Finish, Sample
from stepback_server.search.appraisal import Appraisals, Appraise
from stepback_server.search.budget import TokenBudget
from stepback_server.search.in_order import InOrder
from stepback_server.search.sample_requests import SampleRequests
from stepback_server.search.strategy import Expansion, SearchStrategy
from stepback_server.search.tree import Branch, Tree

# An engine that lives ends a sample within milliseconds; a dead one is not waited for.
_SECONDS_TO_ABORT = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The upper limits of one search."""

    tokens: int
    seconds: float
    tokens_per_branch: int
    """Limit of all that one branch generates after the prompt."""


@dataclass(slots=True)
class Spent:
    """Cost of a search, in tokens as the engine counts them."""

    requests: int = 0
    """Samples requested from the engine; a lost one counts each time."""
    generated: int = 0
    cached: int = 0
    prefilled: int = 0
    """Tokens of prompts and kept prefixes that the engine computed, its cache having none."""

    def add(self, sample: Sample, prefix_tokens: int) -> None:
        """Add what a sample of a prefix has cost."""
        self.generated += sample.generated_tokens
        self.cached += sample.cached_tokens
        # A sample that was aborted before its first token may not have been prefilled at all.
        if sample.generated_tokens:
            self.prefilled += prefix_tokens - sample.cached_tokens


@dataclass(frozen=True, slots=True)
class Searched:
    """A finished search."""

    tree: Tree
    stop_reason: StopReason
    spent: Spent
    seconds: float


class Search:
    """One search over one engine. `run` it once."""

    def __init__(
        self,
        *,
        engine: Engine,
        strategy: SearchStrategy,
        grammar: TokenGrammar,
        prompt_ids: tuple[int, ...],
        limits: Limits,
        seed: int | None,
        is_win: Callable[[Branch], bool],
        observe: Callable[[Branch], None] = lambda branch: None,
        appraise: Appraise | None = None,
        is_lost: Callable[[], bool] = lambda: False,
    ) -> None:
        """`appraise` is awaited between the engine and the strategy, one call at a time: what comes
        meanwhile goes into the next one. The search ends where it then `is_lost`."""
        self._engine = engine
        self._strategy = strategy
        self._grammar = grammar
        self._requests = SampleRequests(grammar, prompt_ids, seed)
        self._limits = limits
        self._is_win = is_win
        self._tree = Tree()
        self._spent = Spent()
        self._observe = observe
        self._budget = TokenBudget(limits.tokens)
        # Fair, first come first served: expansions are paid in the order in which they were picked,
        # so a tree under a seed does not depend on when tokens come back.
        self._budget_turn = asyncio.Lock()
        self._returned = asyncio.Event()
        self._recorded = asyncio.Event()
        self._expanding = 0
        self._in_flight = 0
        self._picked: list[Expansion] = []
        self._appraisals = (
            Appraisals(appraise, self._record_appraised, idle=self._recorded.set)
            if appraise is not None
            else None
        )
        self._is_lost = is_lost
        # A seed asks for the same tree each time, whichever sample ends first; the price is that a
        # branch waits for those that were asked for before it.
        self._early = None if seed is None else InOrder()
        self._stop = asyncio.Event()
        self._reason = StopReason.EXHAUSTED
        self._numbers = itertools.count()
        self._error: EngineError | None = None

    @property
    def in_flight(self) -> int:
        """Branches that the engine samples at this moment."""
        return self._in_flight

    async def run(self) -> Searched:
        """Search to the end. Raises EngineError.

        Cancelling it aborts the engine's work, and so does an error. The samples are awaited and
        counted all the same: otherwise a caller who always hangs up at the end would pay for
        nothing.
        """
        started = time.monotonic()
        deadline = asyncio.get_running_loop().call_later(
            self._limits.seconds, self._finish, StopReason.DEADLINE
        )
        self._growing = growing = asyncio.create_task(self._grow())
        try:
            # Not `await growing`, which would cancel the task with us, before its samples are
            # counted.
            await asyncio.wait({growing})
        except asyncio.CancelledError:
            self._finish(StopReason.CANCELLED)
            await asyncio.wait({growing}, timeout=_SECONDS_TO_ABORT)
            raise
        finally:
            deadline.cancel()
            growing.cancel()
            # Gathered even after an error: a task without a waiter would log its exception when
            # it is collected.
            await asyncio.gather(growing, return_exceptions=True)
            if self._appraisals is not None:
                await self._appraisals.close()
        if self._error is not None:
            raise self._error
        growing.result()
        return Searched(self._tree, self._reason, self._spent, time.monotonic() - started)

    async def _grow(self) -> None:
        """Expand what the strategy picks, as soon as it does, until it picks nothing more."""
        self._pick()
        async with task_group() as group:
            while not self._stop.is_set():
                # Before the picks are taken, so that a branch that comes in between wakes the loop
                # again.
                self._recorded.clear()
                picked, self._picked = self._picked, []
                for expansion in picked:
                    numbers = [next(self._numbers) for _ in range(expansion.n)]
                    self._expanding += 1
                    expanding = group.create_task(self._expand(expansion, numbers))
                    expanding.add_done_callback(self._expanded)
                if not self._expanding and not self._is_appraising:
                    break
                await self._recorded.wait()
        # The group has ended, but what came last may still be at a scorer.
        if self._appraisals is not None:
            await self._appraisals.finish()
        # Where the search ended before a lost sample was sampled again, later ones still count.
        for branch in self._early.rest() if self._early else ():
            self._count(branch)

    def cancel(self) -> None:
        """End now, with the best so far."""
        self._finish(StopReason.CANCELLED)

    def _finish(self, reason: StopReason) -> None:
        """Stop, for the first reason that is given."""
        # Not when tokens run out: verdicts on what was paid for still count.
        if self._appraisals is not None and reason is not StopReason.TOKEN_BUDGET:
            self._appraisals.hurry()
        if not self._stop.is_set():
            self._reason = reason
            self._stop.set()
            self._returned.set()
            self._recorded.set()

    def _fail(self, error: EngineError) -> None:
        """Stop for an error; what else is at work ends soon, or is given up."""
        # The first error is the cause; later ones mostly follow from it.
        if self._error is None:
            self._error = error
            self._finish(StopReason.CANCELLED)
            asyncio.get_running_loop().call_later(_SECONDS_TO_ABORT, self._growing.cancel)

    def _expanded(self, _: asyncio.Task[None]) -> None:
        self._expanding -= 1
        self._recorded.set()

    async def _expand(self, expansion: Expansion, numbers: list[int]) -> None:
        """Sample a state's continuations: all at once where the budget allows it, else each part as
        soon as others return what they did not use. Expansions are paid in their order."""
        # A turn to the end is an answer already: there is nothing left to sample.
        if expansion.state.ids and expansion.state.ids[-1] in self._grammar.stop_ids:
            self._arrive(Branch.of(self._grammar, numbers[0], expansion.state, EMPTY_SAMPLE))
            return
        room = self._room(expansion)
        async with asyncio.TaskGroup() as parts, self._budget_turn:
            while numbers and room > 0 and not self._stop.is_set():
                self._returned.clear()
                count, tokens = self._budget.reserve(len(numbers), room)
                if count:
                    part, numbers = numbers[:count], numbers[count:]
                    parts.create_task(self._sample(expansion, part, tokens))
                elif self._budget.is_empty:
                    self._finish(StopReason.TOKEN_BUDGET)
                else:
                    await self._returned.wait()

    def _room(self, expansion: Expansion) -> int:
        """Tokens that a continuation may have, were there no budget."""
        room = self._limits.tokens_per_branch - len(expansion.state.ids)
        return room if expansion.max_tokens is None else min(room, expansion.max_tokens)

    async def _sample(self, expansion: Expansion, numbers: list[int], tokens: int) -> None:
        """Sample as many continuations as were reserved for. Those that the engine reports as lost
        are still to be sampled, from what the budget has left."""
        self._spent.requests += len(numbers)
        self._in_flight += len(numbers)
        outstanding, lost = len(numbers), list[int]()

        def deliver(sample: Sample) -> None:
            nonlocal outstanding
            outstanding -= 1
            self._in_flight -= 1
            # At once, not when the request ends: branches that wait for tokens can go on.
            self._settle(tokens, sample.generated_tokens)
            self._spent.add(sample, self._requests.prefix_tokens(expansion))
            if sample.finish is Finish.LOST:
                lost.append(numbers[sample.index])
                return
            self._arrive(Branch.of(self._grammar, numbers[sample.index], expansion.state, sample))
            # It stopped where the budget did, not where the answer's own limit is.
            if sample.finish is Finish.LENGTH and tokens < self._room(expansion):
                self._finish(StopReason.TOKEN_BUDGET)

        request = self._requests.of(expansion, numbers, tokens)
        try:
            await self._engine.sample(request, self._stop, deliver)
        except EngineError as error:
            self._fail(error)
        finally:
            # Samples that were never delivered, after an error or a cancellation, give back what
            # was reserved.
            self._settle(outstanding * tokens, 0)
            self._in_flight -= outstanding
        if lost:
            # The same numbers, hence the same seeds: a lost server does not change the tree.
            await self._expand(expansion, sorted(lost))

    def _arrive(self, branch: Branch) -> None:
        """Record a branch, once it is appraised where anything takes time to say of it."""
        if self._appraisals is None:
            self._record(branch)
        else:
            self._appraisals.add(branch)

    @property
    def _is_appraising(self) -> bool:
        return self._appraisals is not None and self._appraisals.is_working

    def _record_appraised(self, branches: Sequence[Branch]) -> None:
        for branch in branches:
            self._record(branch)
        if self._is_lost():
            self._finish(StopReason.CHECKER_FAILED)

    def _record(self, branch: Branch) -> None:
        """Count a branch, with a seed in its turn; nothing after a win."""
        for following in self._early.add(branch) if self._early else (branch,):
            self._count(following)

    def _count(self, branch: Branch) -> None:
        if self._reason is StopReason.SOLVED:
            return
        told = self._strategy.record(branch)
        self._tree.branches.append(told)
        self._observe(told)
        if self._is_win(told):
            self._finish(StopReason.SOLVED)
        # At once: what else has ended by now is an accident, and must not change what is picked.
        self._pick()
        self._recorded.set()

    def _pick(self) -> None:
        self._picked += self._strategy.pick()

    def _settle(self, reserved: int, used: int) -> None:
        self._budget.settle(reserved, used)
        self._returned.set()
