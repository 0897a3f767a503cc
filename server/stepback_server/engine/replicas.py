"""Several engines lent as one: each search tree on one of them; if that is lost, on another."""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from stepback_server.concurrency import run_all
from stepback_server.engine.base import (
    Engine,
    EngineUnavailable,
    OnSample,
    ReloadFailed,
    ReloadNotOffered,
    Sample,
    SampleRequest,
)
from stepback_server.engine.supervisor import Supervisor

_log = logging.getLogger(__name__)

T = TypeVar("T")

_ATTEMPTS = 3
_BETWEEN_ATTEMPTS = 0.1
_COUNT_SECONDS = 1.0
"""A replica that hangs must not hold up whoever asks whether there is a working one."""


class Replicas:
    """The engine seam over supervised engines that serve the same model, and their keeper.

    Sampling has no side effects: what a lost replica has not delivered is sampled by another one,
    with the same seeds, and no search is lost with a replica. What the lost one had generated and
    not delivered is no part of a search, nor of its usage.
    """

    def __init__(self, supervisors: Mapping[str, Supervisor]) -> None:
        self._supervisors = supervisors

    async def run(self) -> None:
        """Watch every replica until cancelled. Raises EngineMismatch where one that answers at the
        start serves something else; one that does so later is left out."""
        await run_all(each.run() for each in self._supervisors.values())

    @property
    def restarts(self) -> int:
        return sum(each.restarts for each in self._supervisors.values())

    @property
    def engine(self) -> Engine:
        """Itself. Raises EngineUnavailable, with every replica's reason, where none is up."""
        if not self._up():
            raise self._unavailable()
        return self

    async def use(self, work: Callable[[Engine], Coroutine[Any, Any, T]]) -> T:
        """Do some work with the replicas; raises EngineUnavailable where none is left."""
        return await work(self.engine)

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        missing = set(range(request.n))
        failed: set[str] = set()

        def pass_on(sample: Sample) -> None:
            missing.discard(sample.index)
            deliver(sample)

        async def sample_missing(engine: Engine) -> None:
            await _sample_some(engine, request, sorted(missing), stop, pass_on)

        for attempts_left in reversed(range(_ATTEMPTS)):
            name = choose(request.tree, self._up() - failed or self._up())
            if name is None:
                break
            try:
                return await self._supervisors[name].use(sample_missing)
            except EngineUnavailable as error:
                _log.warning("%s has failed at %d samples: %s", name, len(missing), error)
                if not attempts_left:
                    raise
            failed.add(name)
            await asyncio.sleep(_BETWEEN_ATTEMPTS)
        raise self._unavailable()

    async def reload(self, checkpoint: Path) -> bool:
        """One after the other. Those that are down load what is served when they come back."""
        self.engine  # noqa: B018
        changed = False
        for number, name in enumerate(sorted(self._up())):
            try:
                changed |= await self._supervisors[name].reload(checkpoint)
            except ReloadNotOffered as error:
                if not number:
                    raise
                raise ReloadFailed(str(error)) from error
        return changed

    async def discard(self, reason: str) -> None:
        await run_all(each.discard(reason) for each in self._supervisors.values())

    async def running(self) -> int:
        """At every replica that is up and answers at once, for whomever they work."""
        up = [each.engine for each in self._supervisors.values() if each.up]
        return sum(await asyncio.gather(*(_running(engine) for engine in up)))

    async def check(self) -> None:
        self.engine  # noqa: B018

    @property
    def up(self) -> int:
        """How many replicas are up."""
        return len(self._up())

    @property
    def version(self) -> str:
        known = {each.version for each in self._supervisors.values()} - {"unknown"}
        return ", ".join(sorted(known)) or "unknown"

    def _up(self) -> set[str]:
        return {name for name, each in self._supervisors.items() if each.up}

    def _unavailable(self) -> EngineUnavailable:
        reasons = (each.reason for each in self._supervisors.values() if not each.up)
        soonest = min(each.seconds_until_up for each in self._supervisors.values())
        return EngineUnavailable("; ".join(reasons), public="no engine is up", retry_after=soonest)


def choose(tree: str, names: Collection[str]) -> str | None:
    """The name for a tree, by rendezvous hashing: it stays the same for as long as it is among the
    names, whichever others come and go. None where there are no names."""
    return max(names, key=lambda name: sha256(f"{name} {tree}".encode()).digest(), default=None)


def runs(indexes: Iterable[int], *, together: bool) -> list[range]:
    """Ascending indexes as few runs of neighbours, or each by itself."""
    found: list[range] = []
    for index in indexes:
        if together and found and index == found[-1].stop:
            found[-1] = range(found[-1].start, index + 1)
        else:
            found.append(range(index, index + 1))
    return found


async def _running(engine: Engine) -> int:
    try:
        async with asyncio.timeout(_COUNT_SECONDS):
            return await engine.running()
    except (EngineUnavailable, TimeoutError):
        return 0


async def _sample_some(
    engine: Engine,
    request: SampleRequest,
    indexes: Iterable[int],
    stop: asyncio.Event,
    deliver: OnSample,
) -> None:
    """Sample some of the request's n, named by their ascending indexes, in few HTTP requests."""

    async def sample_run(run: range) -> None:
        def shift(sample: Sample) -> None:
            deliver(replace(sample, index=run.start + sample.index))

        await engine.sample(_part(request, run), stop, shift)

    # vLLM refuses n above 1 where all would be the same.
    await run_all(sample_run(run) for run in runs(indexes, together=request.temperature > 0))


def _part(request: SampleRequest, run: range) -> SampleRequest:
    """A run of a request's continuations as a request of its own, with the seeds that vLLM gives
    them within the whole: the first one's seed, and one more for each after it."""
    first = None if request.seeds is None else request.seeds[0]
    seeds = None if first is None else tuple(first + index for index in run)
    return replace(request, n=len(run), seeds=seeds)
