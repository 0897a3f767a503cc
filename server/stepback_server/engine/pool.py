"""Pool of supervised engines that serve the same model; each search has its own way in."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from stepback_server.concurrency import run_all, task_group
from stepback_server.engine.base import (
    Engine,
    EngineUnavailable,
    OwnedEngine,
    ReloadFailed,
    ReloadNotOffered,
)
from stepback_server.engine.session_affinity import SessionEngine
from stepback_server.engine.supervisor import Supervisor

_log = logging.getLogger(__name__)

# A replica that hangs must not hold up the question if there is a working one.
_COUNT_SECONDS = 1.0
# Until the next look, where there is no engine at all.
_NONE_SECONDS = 2


class EnginePool:
    """Supervised engines that serve the same model, and their keeper."""

    def __init__(
        self, supervisors: Mapping[str, Supervisor], changes: "Changes | None" = None
    ) -> None:
        """`changes` adds engines and takes them away while the pool runs."""
        self._supervisors = dict(supervisors)
        self._changes = changes
        self._leaving: dict[str, Supervisor] = {}
        """Engines that take no new search, and stay for the searches that they have."""
        # A counter of Prometheus may never fall, also when an engine leaves with its count.
        self._past_restarts = 0
        self._searches = set[SessionEngine]()

    async def run(self) -> None:
        """Watch every replica until cancelled. Raises EngineError where one that answers at the
        start serves something else; one that does so later is left out."""
        if self._changes is None:
            await run_all(each.run() for each in self._supervisors.values())
            return
        async with task_group() as group:
            running = {
                name: group.create_task(each.run()) for name, each in self._supervisors.items()
            }
            await self._follow(self._changes, group, running)

    async def _follow(
        self, changes: "Changes", group: asyncio.TaskGroup, running: dict[str, asyncio.Task[None]]
    ) -> None:
        """Add what is named now, and let go what no longer is."""
        while True:
            wanted = await changes.look()
            for name in sorted(wanted - self._supervisors.keys()):
                # One that comes back before its searches have ended is the same engine, still
                # watched.
                self._supervisors[name] = self._leaving.pop(name, None) or changes.supervise(name)
                if name not in running:
                    _log.info("%s is added", name)
                    running[name] = group.create_task(self._supervisors[name].run())
            for name in sorted(self._supervisors.keys() - wanted):
                _log.info("%s leaves: it takes no new search", name)
                self._leaving[name] = self._supervisors.pop(name)
            for name in [name for name, each in self._leaving.items() if not self._load(each)]:
                _log.info("%s has left", name)
                self._past_restarts += self._leaving.pop(name).restarts
                running.pop(name).cancel()
            await asyncio.sleep(changes.seconds)

    @property
    def restarts(self) -> int:
        present = (*self._supervisors.values(), *self._leaving.values())
        return self._past_restarts + sum(each.restarts for each in present)

    @asynccontextmanager
    async def lend(self) -> AsyncGenerator[Engine]:
        self.ensure_up()
        # One object a search: it remembers the search's home, and its losses.
        search = SessionEngine(self._choose)
        self._searches.add(search)
        try:
            yield search
        finally:
            self._searches.discard(search)

    def ensure_up(self) -> None:
        """Raises EngineUnavailable, with every replica's reason, where none is up."""
        if not self.up:
            raise self._unavailable(begun=False)

    def _choose(self, tree: str) -> Supervisor:
        """The home of a search that begins, or has lost its own. Raises EngineUnavailable where no
        replica is up."""
        up = {name: each for name, each in self._supervisors.items() if each.up}
        well = {name: each for name, each in up.items() if not each.suspect}
        # An engine that has just failed is the last choice, not none: it may be the only one.
        name = choose(tree, {name: self._load(each) for name, each in (well or up).items()})
        if name is None:
            raise self._unavailable()
        return self._supervisors[name]

    def _load(self, home: Supervisor) -> int:
        """The searches that are there now."""
        # Counted by this controller's own searches: asking the servers would cost a request for
        # each search.
        return sum(search.home is home for search in self._searches)

    async def reload(self, checkpoint: Path) -> bool:
        """One after the other. Those that are down load what is served when they come back."""
        # Before the first one changes: a pool without an answer should stay as it is.
        await self.check()
        changed = False
        for number, name in enumerate(sorted(self._up())):
            try:
                changed |= await self._supervisors[name].reload(checkpoint)
            except ReloadNotOffered as error:
                # The first one has changed nothing yet, so that a clean refusal is true only of it.
                if not number:
                    raise
                raise ReloadFailed(str(error)) from error
        return changed

    async def discard(self, reason: str) -> None:
        await run_all(each.discard(reason) for each in self._supervisors.values())

    async def running(self) -> int:
        """Continuations at every engine that is up and answers at once, for any controller."""
        up = [each.engine for each in self._supervisors.values() if each.up]
        return sum(await asyncio.gather(*(_running(engine) for engine in up)))

    async def check(self) -> None:
        """Raises EngineUnavailable, with every replica's reason, where none is up and well: one
        that has just failed a request must show that it works first."""
        if all(each.suspect or not each.up for each in self._supervisors.values()):
            raise self._unavailable()

    @property
    def up(self) -> int:
        """Tell how many replicas are up."""
        return len(self._up())

    @property
    def version(self) -> str:
        known = {each.version for each in self._supervisors.values()} - {"unknown"}
        return ", ".join(sorted(known)) or "unknown"

    def _up(self) -> set[str]:
        return {name for name, each in self._supervisors.items() if each.up}

    def _unavailable(self, *, begun: bool = True) -> EngineUnavailable:
        reasons = (
            f"{name} has failed a request and is being checked" if each.up else each.reason
            for name, each in self._supervisors.items()
        )
        soonest = min(
            (each.seconds_until_up for each in self._supervisors.values()), default=_NONE_SECONDS
        )
        reason = "; ".join(reasons) or "no name of an engine resolves"
        return EngineUnavailable(reason, public="no engine is up", retry_after=soonest, begun=begun)


@dataclass(frozen=True, slots=True)
class Changes:
    """Source of the engines that come and go."""

    look: Callable[[], Awaitable[frozenset[str]]]
    """Gives the URLs of all engines."""
    supervise: Callable[[str], Supervisor]
    seconds: float = 2.0
    """Between two looks."""


def choose(tree: str, loads: Mapping[str, int]) -> str | None:
    """Choose the engine of a tree: the name with the least load; among several of these by
    rendezvous hashing, which spreads trees as evenly as chance does. None if there are no names."""

    def rank(name: str) -> tuple[int, bytes]:
        # Rendezvous hashing needs no state: every controller, and the same one after a restart,
        # finds the same engine, and a lost one moves its own trees alone.
        return -loads[name], sha256(f"{name} {tree}".encode()).digest()

    return max(loads, key=rank, default=None)


async def _running(engine: OwnedEngine) -> int:
    try:
        async with asyncio.timeout(_COUNT_SECONDS):
            return await engine.running()
    except (EngineUnavailable, TimeoutError):
        return 0
