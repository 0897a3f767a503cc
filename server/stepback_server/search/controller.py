"""The search loop: pick, expand, record. The only file of the search that waits for anything."""

import asyncio
import itertools
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from stepback_core.trace import TokenGrammar
from stepback_core.wire import StopReason
from stepback_server.concurrency import run_all
from stepback_server.engine.base import Engine, Finish, Sample, SampleRequest
from stepback_server.search.budget import TokenPurse
from stepback_server.search.strategies import Expansion, SearchStrategy
from stepback_server.search.tree import Branch, Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The upper limits of one search."""

    tokens: int
    seconds: float
    tokens_per_branch: int
    """Of everything that one branch generates since the prompt."""


@dataclass(frozen=True, slots=True)
class Searched:
    """A finished search."""

    tree: Tree
    stop_reason: StopReason
    engine_requests: int
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
    ) -> None:
        self._engine = engine
        self._strategy = strategy
        self._tree = Tree(grammar)
        self._prompt_ids = prompt_ids
        self._limits = limits
        self._seed = seed
        self._name = uuid.uuid4().hex
        self._is_win = is_win
        self._purse = TokenPurse(limits.tokens)
        self._returned = asyncio.Event()
        self._stop = asyncio.Event()
        self._reason = StopReason.EXHAUSTED
        self._numbers = itertools.count()
        self._engine_requests = 0

    async def run(self) -> Searched:
        """Search to the end. Raises EngineError; cancelling it aborts the engine's work."""
        started = time.monotonic()
        deadline = asyncio.get_running_loop().call_later(
            self._limits.seconds, self._finish, StopReason.DEADLINE
        )
        try:
            while not self._stop.is_set() and (expansions := self._strategy.pick()):
                await run_all(self._expand(each, self._number(each)) for each in expansions)
        finally:
            deadline.cancel()
        return Searched(self._tree, self._reason, self._engine_requests, time.monotonic() - started)

    def cancel(self) -> None:
        """End now, with the best so far."""
        self._finish(StopReason.CANCELLED)

    def _finish(self, reason: StopReason) -> None:
        """Stop, for the first reason that is given."""
        if not self._stop.is_set():
            self._reason = reason
            self._stop.set()
            self._returned.set()

    def _number(self, expansion: Expansion) -> list[int]:
        return [next(self._numbers) for _ in range(expansion.n)]

    async def _expand(self, expansion: Expansion, numbers: list[int]) -> None:
        """Sample a state's continuations: all at once where the budget allows it, else each part as
        soon as others return what they did not use."""
        room = self._room(expansion)
        async with asyncio.TaskGroup() as parts:
            while numbers and room > 0 and not self._stop.is_set():
                self._returned.clear()
                count, tokens = self._purse.reserve(len(numbers), room)
                if count:
                    part, numbers = numbers[:count], numbers[count:]
                    parts.create_task(self._sample(expansion, part, tokens))
                elif self._purse.is_empty:
                    self._finish(StopReason.TOKEN_BUDGET)
                else:
                    await self._returned.wait()

    def _room(self, expansion: Expansion) -> int:
        """Tokens that a continuation may have, were there no budget."""
        return self._limits.tokens_per_branch - len(expansion.state.ids)

    async def _sample(self, expansion: Expansion, numbers: list[int], tokens: int) -> None:
        self._engine_requests += len(numbers)
        outstanding = len(numbers)

        def deliver(sample: Sample) -> None:
            nonlocal outstanding
            outstanding -= 1
            self._settle(tokens, sample.generated_tokens)
            branch = self._tree.add(numbers[sample.index], expansion.state, sample)
            self._strategy.record(branch)
            if self._is_win(branch):
                self._finish(StopReason.SOLVED)
            elif sample.finish is Finish.LENGTH and tokens < self._room(expansion):
                self._finish(StopReason.TOKEN_BUDGET)

        try:
            await self._engine.sample(
                self._request(expansion, numbers, tokens), self._stop, deliver
            )
        finally:
            self._settle(outstanding * tokens, 0)

    def _settle(self, reserved: int, used: int) -> None:
        self._purse.settle(reserved, used)
        self._returned.set()

    def _request(self, expansion: Expansion, numbers: list[int], tokens: int) -> SampleRequest:
        grammar = self._tree.grammar
        return SampleRequest(
            ids=self._prompt_ids + expansion.state.ids,
            n=len(numbers),
            max_tokens=tokens,
            temperature=expansion.temperature,
            seeds=None if self._seed is None else tuple(_seed(self._seed, n) for n in numbers),
            stop_ids=grammar.stop_ids,
            tree=self._name,
        )


def _seed(seed: int, number: int) -> int:
    """A sample's own seed: hashed, so that searches with neighbouring seeds share no sample."""
    return int.from_bytes(sha256(f"{seed}:{number}".encode()).digest()[:4]) & 0x7FFFFFFF
