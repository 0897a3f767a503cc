"""Several engines lent as one: each search at one of them; if that is lost, at another."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from stepback_server.concurrency import run_all
from stepback_server.engine.base import (
    Engine,
    EngineUnavailable,
    ReloadFailed,
    ReloadNotOffered,
)
from stepback_server.engine.session_affinity import HomedEngine
from stepback_server.engine.supervisor import Supervisor

T = TypeVar("T")

_COUNT_SECONDS = 1.0
"""A replica that hangs must not hold up whoever asks whether there is a working one."""


class Replicas:
    """Supervised engines that serve the same model, and their keeper."""

    def __init__(self, supervisors: Mapping[str, Supervisor]) -> None:
        self._supervisors = supervisors
        self._searches = set[HomedEngine]()

    async def run(self) -> None:
        """Watch every replica until cancelled. Raises EngineMismatch where one that answers at the
        start serves something else; one that does so later is left out."""
        await run_all(each.run() for each in self._supervisors.values())

    @property
    def restarts(self) -> int:
        return sum(each.restarts for each in self._supervisors.values())

    @property
    def engine(self) -> Engine:
        """All of them. Raises EngineUnavailable, with every replica's reason, where none is up."""
        if not self.up:
            raise self._unavailable()
        return HomedEngine(self)

    async def use(self, work: Callable[[Engine], Coroutine[Any, Any, T]]) -> T:
        """Do a search's work with the replicas; raises EngineUnavailable where none is left."""
        if not self.up:
            raise self._unavailable()
        search = HomedEngine(self)
        self._searches.add(search)
        try:
            return await work(search)
        finally:
            self._searches.discard(search)

    def choose(self, tree: str) -> Supervisor:
        """The home of a search that begins, or has lost its own. Raises EngineUnavailable where no
        replica is up."""
        up = {name: each for name, each in self._supervisors.items() if each.up}
        well = {name: each for name, each in up.items() if not each.doubted}
        name = choose(tree, {name: self._load(each) for name, each in (well or up).items()})
        if name is None:
            raise self._unavailable()
        return self._supervisors[name]

    def _load(self, home: Supervisor) -> int:
        """The searches that are there now."""
        return sum(search.home is home for search in self._searches)

    async def reload(self, checkpoint: Path) -> bool:
        """One after the other. Those that are down load what is served when they come back."""
        await self.check()
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
        """Raises EngineUnavailable, with every replica's reason, where none is up and well: one
        that has just failed a request must show that it works first."""
        if all(each.doubted or not each.up for each in self._supervisors.values()):
            raise self._unavailable()

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
        reasons = (
            f"{name} has failed a request and is being checked" if each.up else each.reason
            for name, each in self._supervisors.items()
        )
        soonest = min(each.seconds_until_up for each in self._supervisors.values())
        return EngineUnavailable("; ".join(reasons), public="no engine is up", retry_after=soonest)


def choose(tree: str, loads: Mapping[str, int]) -> str | None:
    """Where a tree goes: to the name with the least load; among several of these by rendezvous
    hashing, which spreads trees as evenly as chance does. None where there are no names."""

    def rank(name: str) -> tuple[int, bytes]:
        return -loads[name], sha256(f"{name} {tree}".encode()).digest()

    return max(loads, key=rank, default=None)


async def _running(engine: Engine) -> int:
    try:
        async with asyncio.timeout(_COUNT_SECONDS):
            return await engine.running()
    except (EngineUnavailable, TimeoutError):
        return 0
