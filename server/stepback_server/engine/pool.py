"""Pool of engines with session affinity: all samples of one search go to one engine.

If that engine is lost, the search goes on at another.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from stepback_server.concurrency import run_all, task_group
from stepback_server.engine.base import (
    Engine,
    EngineUnavailable,
    Finish,
    OnSample,
    ReloadFailed,
    ReloadNotOffered,
    Sample,
    SampleRequest,
)
from stepback_server.engine.supervisor import Supervisor

_log = logging.getLogger(__name__)

# A replica that hangs must not hold up the question if there is a working one.
_COUNT_SECONDS = 1.0
# A prefix that is lost with this many engines in a row may be what kills them.
_MAX_LOSSES = 3
# Time for an engine to recover that failed somebody, where there is none but it.
_SUSPECT_DELAY_SECONDS = 0.1
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
        """Those that take no new search, and stay for those that they have."""
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

    @property
    def engine(self) -> Engine:
        """All of them. Raises EngineUnavailable where none is up."""
        self.ensure_up()
        return SessionEngine(self)

    @asynccontextmanager
    async def lend(self) -> AsyncGenerator[Engine]:
        self.ensure_up()
        # One object a search: it remembers the search's home, and its losses.
        search = SessionEngine(self)
        self._searches.add(search)
        try:
            yield search
        finally:
            self._searches.discard(search)

    def ensure_up(self) -> None:
        """Raises EngineUnavailable, with every replica's reason, where none is up."""
        if not self.up:
            raise self._unavailable()

    def choose(self, tree: str) -> Supervisor:
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
        # Before the first one changes: a fleet of which nobody answers should stay as it is.
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
        """At every replica that is up and answers at once, for whomever they work."""
        up = [each.engine for each in self._supervisors.values() if each.up]
        return sum(await asyncio.gather(*(_running(engine) for engine in up)))

    async def check(self) -> None:
        """Raises EngineUnavailable, with every replica's reason, where none is up and well: one
        that has just failed a request must show that it works first."""
        if all(each.suspect or not each.up for each in self._supervisors.values()):
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
        soonest = min(
            (each.seconds_until_up for each in self._supervisors.values()), default=_NONE_SECONDS
        )
        reason = "; ".join(reasons) or "no name of an engine resolves"
        return EngineUnavailable(reason, public="no engine is up", retry_after=soonest)


@dataclass(frozen=True, slots=True)
class Changes:
    """How a pool learns of engines that come and go."""

    look: Callable[[], Awaitable[frozenset[str]]]
    """Gives the URLs of all engines."""
    supervise: Callable[[str], Supervisor]
    seconds: float = 2.0
    """Between two looks."""


class SessionEngine:
    """The engine seam for one search over several engines.

    Sampling has no side effects, so that samples lost with one engine may be drawn from another
    with the same seeds. A loss costs tokens, which only the search's budget can grant again: a lost
    sample is delivered as LOST, with its worst-case cost, and the search asks for it again.
    """

    def __init__(self, pool: EnginePool) -> None:
        self._pool = pool
        self.home: Supervisor | None = None
        """The supervisor whose engine has the search's prefixes in its cache."""
        self._homes_lost = 0
        # Homes, by number, that each prefix was lost with since it last gave a sample.
        self._losses: dict[tuple[int, ...], set[int]] = {}

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        await run_all([self._sample_run(request, run, stop, deliver) for run in runs(request)])

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
            losses = self._losses.setdefault(request.ids, set())
            losses.add(number)
            # The worst case: usage is never too small.
            cost = request.max_tokens if error.begun else 0
            for index in sorted(missing):
                deliver(_lost(index, cost))
            # Counted by homes: several requests that are lost with one engine are one loss.
            if len(losses) >= _MAX_LOSSES:
                raise EngineUnavailable(
                    f"{len(missing)} samples were lost {_MAX_LOSSES} times"
                ) from error

    async def _find_home(self, tree: str) -> Supervisor:
        home = self.home
        if home is None or not home.up:
            self.home = home = self._pool.choose(tree)
            if home.suspect:
                # Else the same samples would be lost several times before the supervisor looks.
                await asyncio.sleep(_SUSPECT_DELAY_SECONDS)
        return home

    def _leave(self, home: Supervisor) -> None:
        """After a loss there; others of this search may have moved already."""
        home.suspect = True
        if self.home is home:
            self.home = None
            self._homes_lost += 1

    async def running(self) -> int:
        return await self._pool.running()

    async def check(self) -> None:
        await self._pool.check()


def choose(tree: str, loads: Mapping[str, int]) -> str | None:
    """Choose the engine of a tree: the name with the least load; among several of these by
    rendezvous hashing, which spreads trees as evenly as chance does. None if there are no names."""

    def rank(name: str) -> tuple[int, bytes]:
        # Rendezvous hashing needs no state: every controller, and the same one after a restart,
        # finds the same engine, and a lost one moves its own trees alone.
        return -loads[name], sha256(f"{name} {tree}".encode()).digest()

    return max(loads, key=rank, default=None)


async def _running(engine: Engine) -> int:
    try:
        async with asyncio.timeout(_COUNT_SECONDS):
            return await engine.running()
    except (EngineUnavailable, TimeoutError):
        return 0


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
