"""Several engines as one search sees them: it is at one of them; if that is lost, at another."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from stepback_server.concurrency import run_all
from stepback_server.engine.base import (
    EngineUnavailable,
    Finish,
    NeverBegun,
    OnSample,
    Sample,
    SampleRequest,
)
from stepback_server.engine.supervisor import Supervisor

_log = logging.getLogger(__name__)

_BEFORE_A_DOUBTED_ONE = 0.1
"""Seconds that an engine is given to recover, where there is none but it."""


class Fleet(Protocol):
    """The engines that a search may be at."""

    def choose(self, tree: str) -> Supervisor:
        """A home for a search's tree. Raises EngineUnavailable where no engine is up."""
        ...

    async def running(self) -> int: ...

    async def check(self) -> None: ...


class HomedEngine:
    """The engine seam for one search over several engines.

    Sampling has no side effects, so that what is lost with an engine may be sampled by another one
    with the same seeds. It is not done here: a loss costs tokens, and whoever asked must say
    whether he has more. He gets it back as lost, with the most that it can have cost.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.home: Supervisor | None = None
        """Whose engine has the search's prefixes in its cache."""

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        await run_all([self._sample_run(request, run, stop, deliver) for run in runs(request)])

    async def _sample_run(
        self, request: SampleRequest, run: range, stop: asyncio.Event, deliver: OnSample
    ) -> None:
        """Sample some neighbours of the request's n, in one HTTP request."""
        missing = set(run)

        def pass_on(sample: Sample) -> None:
            index = run.start + sample.index
            missing.discard(index)
            deliver(replace(sample, index=index))

        home = await self._find_home(request.tree)
        try:
            await home.use(lambda engine: engine.sample(_part(request, run), stop, pass_on))
        except EngineUnavailable as error:
            _log.warning("%d samples were lost: %s", len(missing), error)
            self._leave(home)
            cost = 0 if isinstance(error, NeverBegun) else request.max_tokens
            for index in sorted(missing):
                deliver(_lost(index, cost))

    async def _find_home(self, tree: str) -> Supervisor:
        home = self.home
        if home is None or not home.up:
            self.home = home = self._fleet.choose(tree)
            if home.doubted:
                await asyncio.sleep(_BEFORE_A_DOUBTED_ONE)
        return home

    def _leave(self, home: Supervisor) -> None:
        """After a loss there; others of this search may have moved already."""
        home.doubted = True
        if self.home is home:
            self.home = None

    async def running(self) -> int:
        return await self._fleet.running()

    async def check(self) -> None:
        await self._fleet.check()


def runs(request: SampleRequest) -> list[range]:
    """A request's continuations, by index, as the fewest HTTP requests that can be made of them.

    vLLM takes the seed of the first and gives each further one the next, and refuses n above 1
    where all would be the same.
    """
    found: list[range] = []
    for index in range(request.n):
        if found and request.temperature > 0 and _follows(request.seeds, index):
            found[-1] = range(found[-1].start, index + 1)
        else:
            found.append(range(index, index + 1))
    return found


def _follows(seeds: Sequence[int] | None, index: int) -> bool:
    return seeds is None or seeds[index] == seeds[index - 1] + 1


def _part(request: SampleRequest, run: range) -> SampleRequest:
    seeds = None if request.seeds is None else request.seeds[run.start : run.stop]
    return replace(request, n=len(run), seeds=seeds)


def _lost(index: int, tokens: int) -> Sample:
    return Sample(
        index=index,
        ids=(),
        logprobs=(),
        finish=Finish.LOST,
        cached_tokens=0,
        unseen_tokens=tokens,
    )
