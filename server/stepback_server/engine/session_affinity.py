"""Session affinity: all samples of one search go to one engine, whose cache has its prefixes.

If that engine is lost, the search goes on at another.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from stepback_server.concurrency import task_group
from stepback_server.engine.base import (
    EngineUnavailable,
    Finish,
    OnSample,
    Sample,
    SampleRequest,
)
from stepback_server.engine.supervisor import Supervisor

_log = logging.getLogger(__name__)

# A prefix that is lost with this many engines in a row may be what kills them.
_MAX_LOSSES = 3
# Time for an engine to recover that failed a search, where there is no other.
_SUSPECT_DELAY_SECONDS = 0.1


ChooseHome = Callable[[str], Supervisor]
"""Gives the supervisor for the tree of a search that begins, or has lost its engine. Raises
EngineUnavailable."""


class SessionEngine:
    """The engine seam for one search over several engines.

    Sampling has no side effects, so that samples lost with one engine may be drawn from another
    with the same seeds. A loss costs tokens, which only the search's budget can grant again: a lost
    sample is delivered as LOST, with its worst-case cost, and the search asks for it again.
    """

    def __init__(self, choose: ChooseHome) -> None:
        self._choose = choose
        self.home: Supervisor | None = None
        """The supervisor whose engine has the search's prefixes in its cache."""
        self._homes_lost = 0
        # Homes, by number, that each prefix was lost with since it last gave a sample; True where
        # the engine had taken it.
        self._losses: dict[tuple[int, ...], dict[int, bool]] = {}

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        first, *others = runs(request)
        if not others:
            await self._sample_run(request, first, stop, deliver)
            return
        async with task_group() as group:
            for run in (first, *others):
                group.create_task(self._sample_run(request, run, stop, deliver))

    async def _sample_run(
        self, request: SampleRequest, run: range, stop: asyncio.Event, deliver: OnSample
    ) -> None:
        """Sample some neighbours of the request's n, in one HTTP request.

        Raises EngineUnavailable where no engine is up, or the prefix was lost with several."""
        missing = set(run)

        def pass_on(sample: Sample) -> None:
            # A prefix that gives samples is not what kills engines.
            self._losses.pop(request.ids, None)
            index = run.start + sample.index
            missing.discard(index)
            deliver(replace(sample, index=index))

        home = await self._find_home(request.tree)
        number = self._homes_lost
        try:
            async with home.lend() as engine:
                await engine.sample(_part(request, run), stop, pass_on)
        except EngineUnavailable as error:
            _log.warning("%d samples were lost: %s", len(missing), error)
            self._leave(home)
            losses = self._losses.setdefault(request.ids, {})
            losses[number] = error.begun or losses.get(number, False)
            # The worst case: usage is never too small.
            cost = request.max_tokens if error.begun else 0
            for index in sorted(missing):
                deliver(_lost(index, cost))
            # Counted by homes: several requests that are lost with one engine are one loss.
            if len(losses) >= _MAX_LOSSES:
                raise EngineUnavailable(
                    f"{len(missing)} samples were lost {_MAX_LOSSES} times",
                    begun=any(losses.values()),
                ) from error

    async def _find_home(self, tree: str) -> Supervisor:
        home = self.home
        if home is None or not home.up:
            try:
                self.home = home = self._choose(tree)
            except EngineUnavailable as error:
                # Who chooses knows the engines, and not whether one had taken what is missing.
                error.begun = any(any(each.values()) for each in self._losses.values())
                raise
            if home.suspect:
                # Else the same samples would be lost several times before the supervisor looks.
                await asyncio.sleep(_SUSPECT_DELAY_SECONDS)
        return home

    def _leave(self, home: Supervisor) -> None:
        """Leave an engine that lost a sample; others of this search may have left already."""
        home.suspect = True
        if self.home is home:
            self.home = None
            self._homes_lost += 1


def runs(request: SampleRequest) -> list[range]:
    """A request's continuations, by index, as the fewest HTTP requests that can be made of them.

    vLLM takes the seed of the first and gives each further one the next, and refuses n above 1
    where all would be the same.
    """
    found: list[range] = []
    for index in range(request.n):
        # One HTTP request for n is about three times as fast as n of them.
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
