"""An engine whose samples are charged to somebody as they come."""

import asyncio

from stepback_server.engine.base import Engine, OnSample, Sample, SampleRequest
from stepback_server.engine.passing import PassingEngine

_SECONDS_TO_ABORT = 1.0
"""An engine that lives ends a sample within milliseconds; a dead one is not waited for."""


class ChargedEngine(PassingEngine):
    """Passes everything on to an engine, and charges every sample that it generates.

    Also those of a call that is cancelled: its samples are stopped, counted and thrown away, since
    otherwise a caller who always hangs up at the end would pay for nothing.
    """

    def __init__(self, engine: Engine, charge: OnSample) -> None:
        super().__init__(engine)
        self._charge = charge

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        is_wanted = True
        # One of its own: to stop this call must not stop others that share the caller's.
        stopped = asyncio.Event()

        def count(sample: Sample) -> None:
            self._charge(sample)
            if is_wanted:
                deliver(sample)

        async def stop_with_the_caller() -> None:
            await stop.wait()
            stopped.set()

        watcher = asyncio.create_task(stop_with_the_caller())
        work = asyncio.create_task(super().sample(request, stopped, count))
        try:
            await asyncio.shield(work)
        finally:
            is_wanted = False
            stopped.set()
            watcher.cancel()
            try:
                await asyncio.wait({work}, timeout=_SECONDS_TO_ABORT)
            finally:
                # Also where the wait is cancelled once more.
                work.cancel()
                await asyncio.gather(work, watcher, return_exceptions=True)
