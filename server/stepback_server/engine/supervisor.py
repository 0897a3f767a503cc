"""Keeps an engine alive: notices its death or its hang, and brings it back, with backoff."""

import asyncio
import itertools
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from stepback_server.concurrency import Alarm, Interrupted
from stepback_server.engine.base import (
    Engine,
    EngineError,
    EngineUnavailable,
    OwnedEngine,
    ReloadFailed,
    SampleRequest,
)
from stepback_server.engine.death import Death

_log = logging.getLogger(__name__)

_MIN_RETRY_AFTER = 2
# Starts in a row that die the same way: another one would too.
_SAME_DEATHS = 3

StartEngine = Callable[[], OwnedEngine]
"""Brings an engine up, or to a server that is; blocks for seconds, so it runs in a thread."""


class EngineProvider(Protocol):
    """Whoever keeps the engine of a service alive, and lends it."""

    async def run(self) -> None: ...

    def lend(self) -> AbstractAsyncContextManager[Engine]:
        """Lend the engine for one search. Raises EngineUnavailable if there is none or it is
        lost meanwhile."""
        ...

    def ensure_up(self) -> None:
        """Raise EngineUnavailable where there is no engine now."""
        ...

    async def reload(self, checkpoint: Path) -> bool:
        """Reload every engine, as `OwnedEngine.reload` does. After another error than
        ReloadNotOffered the engines must be discarded."""
        ...

    async def discard(self, reason: str) -> None:
        """Replace every engine, as if it was lost."""
        ...

    async def check(self) -> None:
        """Raise EngineUnavailable unless an engine lives."""
        ...

    async def running(self) -> int:
        """Continuations that the engines are working on now."""
        ...

    @property
    def restarts(self) -> int:
        """Number of lost engines that came back."""
        ...

    @property
    def up(self) -> int:
        """Tell how many engines can be sampled from."""
        ...

    @property
    def version(self) -> str:
        """vLLM's, of the engines that are up or were last; "unknown" before the first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheckConfig:
    """Intervals and deadlines of the checks of an engine, in seconds."""

    between_checks: float = 0.25
    between_canaries: float = 3.0
    canary_deadline: float = 10.0
    """An engine that has a canary to work on and makes no progress for this time hangs."""
    reload_deadline: float = 600.0
    """Loading new weights takes as long as they are large; the engine is not watched meanwhile."""
    first_backoff: float = 0.5
    longest_backoff: float = 30.0
    expected_start: float = 20.0
    """Expected time of a start, until one was measured."""


REMOTE_HEALTH_CHECK = HealthCheckConfig(between_checks=1.0, longest_backoff=5.0, expected_start=2.0)
"""A server over HTTP costs a request to check, and nothing to come back to."""


def canary(end_id: int) -> SampleRequest:
    """The smallest work that shows an engine to be alive."""
    # One token of a one-token prompt: the smallest batch that still goes through the whole engine.
    return SampleRequest(ids=(end_id,), n=1, max_tokens=1, temperature=0.0, seeds=None, stop_ids=())


class Supervisor:
    """Keeps one engine. `run` it in a task; lend the engine with `lend`."""

    def __init__(
        self,
        start_engine: StartEngine,
        canary: SampleRequest,
        patience: HealthCheckConfig | None = None,
        *,
        name: str = "the engine",
        awaits: bool = False,
    ) -> None:
        """`awaits`: a first start that fails is tried again, whatever it failed of."""
        self._awaits = awaits
        self._start_engine = start_engine
        self._canary = canary
        self._patience = patience or HealthCheckConfig()
        self._name = name
        self._engine: OwnedEngine | None = None
        # A new alarm for each engine: users of the old one must not hear the new one's.
        self._lost = Alarm()
        # Held while the engine is checked or changed: one at a time.
        self._attention = asyncio.Lock()
        self._reason = f"{name} is still starting"
        self._public = "the engine is still starting"
        # How the last engine ended, where it is known and there is no other yet.
        self._death: Death | None = None
        # Causes of death of the starts since an engine was up.
        self._deaths: list[str] = []
        # Seconds of the last start.
        self._start_seconds = self._patience.expected_start
        # When the engine should be up, while there is none.
        self._due = time.monotonic() + self._start_seconds
        self.suspect = False
        """True if it failed a search, and no check has found it well since."""
        self.restarts = 0
        self.version = "unknown"

    async def run(self) -> None:
        """Start an engine and replace it whenever it is lost; ends by cancellation.

        A first start that fails is raised: it is the configuration's fault, except where the
        engine is a server that is not up yet, or was killed by a signal. Later ones are retried.
        Starts that die the same way three times in a row are raised as well.
        """
        try:
            self._expect()
            try:
                await self._start()
            except EngineError as error:
                # A fault that every start would repeat ends the process: a supervisor of the
                # operator's notices that, a log line may be overlooked.
                if self._is_fault_of_configuration(error):
                    raise
                self._note(error)
                _log.warning("%s is awaited: %s", self._name, error)
                await self._bring_up()
            while True:
                await self._replace(await self._until_lost())
                self.restarts += 1
        finally:
            await self._retire(kill=False)

    def _is_fault_of_configuration(self, error: EngineError) -> bool:
        if self._awaits:
            return False
        if not isinstance(error, EngineUnavailable):
            return True
        # A signal may be the machine's doing, the OOM killer's for example.
        return error.death is not None and not error.death.by_a_signal

    @asynccontextmanager
    async def lend(self) -> AsyncGenerator[Engine]:
        engine, lost = self.engine, self._lost
        try:
            async with lost.interrupts():
                yield engine
        except Interrupted:
            # begun: the lent engine may have generated all that was asked.
            raise self._unavailable() from None

    def ensure_up(self) -> None:
        if self._engine is None:
            raise self._unavailable(begun=False)

    async def check(self) -> None:
        await self.engine.check()

    async def running(self) -> int:
        return await self.engine.running()

    async def reload(self, checkpoint: Path) -> bool:
        async with self._attention:
            try:
                async with asyncio.timeout(self._patience.reload_deadline):
                    return await self.engine.reload(checkpoint)
            except TimeoutError:
                # Whether the weights were exchanged is unknown then, so the engine must go.
                raise ReloadFailed(f"{self._name} is still at it after its deadline") from None

    async def discard(self, reason: str) -> None:
        async with self._attention:
            if self._engine is not None:
                self._say_lost(reason)
                await self._retire(kill=True)

    @property
    def engine(self) -> OwnedEngine:
        """The engine at work. Raises EngineUnavailable where there is none."""
        if self._engine is None:
            raise self._unavailable(begun=False)
        return self._engine

    def _unavailable(self, *, begun: bool = True) -> EngineUnavailable:
        return EngineUnavailable(
            self._reason,
            public=self._public,
            retry_after=self.seconds_until_up,
            death=self._death,
            begun=begun,
        )

    @property
    def seconds_until_up(self) -> int:
        """Seconds until a start ends, judged by the last one; if overdue, until the next look."""
        return max(_MIN_RETRY_AFTER, math.ceil(self._due - time.monotonic()))

    def _expect(self, wait: float = 0.0) -> None:
        """Expect the next start to begin in `wait` seconds."""
        self._due = time.monotonic() + wait + self._start_seconds

    @property
    def up(self) -> int:
        return int(self._engine is not None)

    @property
    def reason(self) -> str:
        """Tell why there is no engine, while there is none."""
        return self._reason

    async def _start(self) -> None:
        began = time.monotonic()
        # A thread of the loop's own pool: it lives until the loop ends, as the engine's processes
        # need it to, which the kernel kills when the thread that started them has gone.
        starting = asyncio.ensure_future(asyncio.to_thread(self._start_engine))
        try:
            engine = await asyncio.shield(starting)
        except asyncio.CancelledError:
            # A thread cannot be cancelled, and an engine that is half up would be left behind.
            # Whatever else it fails of, there is then nothing to leave behind.
            with suppress(Exception):
                await (await starting).close(kill=False)
            raise
        # Before anybody can use it.
        await self._prove(engine)
        self._engine, self._lost, self.suspect = engine, Alarm(), False
        self._death = None
        self._deaths.clear()
        self.version = engine.version
        self._start_seconds = time.monotonic() - began
        _log.info("%s is up", self._name)

    async def _prove(self, engine: OwnedEngine) -> None:
        """An engine is up when it has sampled: a server can answer although its engine hangs."""
        try:
            if await self._hangs(engine):
                raise EngineUnavailable(f"{self._name} hangs")
        except BaseException:
            await engine.close(kill=True)
            raise

    async def _until_lost(self) -> EngineError:
        """Watch the engine; returns why it is lost."""
        engine, patience = self.engine, self._patience
        # Counted in checks: one loop keeps both, and a canary never runs during a check.
        checks = max(1, round(patience.between_canaries / patience.between_checks))
        progress = -1
        for number in itertools.count(1):
            await asyncio.sleep(patience.between_checks)
            async with self._attention:
                if self._engine is not engine:
                    break
                try:
                    await engine.check()
                    if number % checks == 0:
                        # An engine that works needs no canary, which would change its batches.
                        if await engine.progress() == progress and await self._hangs(engine):
                            return EngineUnavailable(f"{self._name} hangs")
                        progress = await engine.progress()
                except EngineError as error:
                    return error
                self.suspect = False
        return EngineUnavailable(f"{self._name} was discarded")

    async def _hangs(self, engine: OwnedEngine) -> bool:
        progress = await engine.progress()
        try:
            async with asyncio.timeout(self._patience.canary_deadline):
                await engine.sample(self._canary, asyncio.Event(), lambda sample: None)
        except TimeoutError:
            # A canary that waits in a long queue proves nothing: only an engine that does
            # nothing at all hangs.
            return await engine.progress() == progress
        return False

    async def _replace(self, loss: EngineError) -> None:
        if self._engine is not None:
            self._say_lost(str(loss), loss.death if isinstance(loss, EngineUnavailable) else None)
            await self._retire(kill=True)
        await self._bring_up()

    def _say_lost(self, reason: str, death: Death | None = None) -> None:
        _log.error("%s is lost: %s", self._name, reason)
        self._death = death
        self._reason = f"{reason}; it is being brought back"
        self._public = "the engine was lost; it is being brought back"
        self._expect()

    async def _bring_up(self) -> None:
        wait = self._patience.first_backoff
        while self._engine is None:
            self._expect(wait)
            await asyncio.sleep(wait)
            # Doubled before the start, so that the log can name the next pause.
            wait = min(2 * wait, self._patience.longest_backoff)
            try:
                await self._start()
            except Exception as error:  # whatever a start can fail of: it is tried again
                self._note(error)
                _log.error("%s did not start, next try in %.1f s: %s", self._name, wait, error)

    def _note(self, error: Exception) -> None:
        """Keep why a start failed. Raises the error where more starts would die the same way."""
        self._reason = (
            str(error) if isinstance(error, EngineError) else f"its start failed: {error}"
        )
        self._death = error.death if isinstance(error, EngineUnavailable) else None
        # Another kind of failure in between: the same death is no longer in a row.
        if self._death is None:
            self._deaths.clear()
            return
        self._deaths.append(self._death.cause)
        last = self._deaths[-_SAME_DEATHS:]
        if len(last) == _SAME_DEATHS and len(set(last)) == 1:
            raise error

    async def _retire(self, *, kill: bool) -> None:
        engine, self._engine = self._engine, None
        # Its users first: a dead engine may never answer them.
        self._lost.ring()
        if engine is not None:
            await engine.close(kill=kill)
