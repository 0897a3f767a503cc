"""Runs jobs in this process: claims them under its lease, answers them, writes the answers."""

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any

from stepback_server.errors import ApiError
from stepback_server.gateway.tenant import Tenant
from stepback_server.jobs.claims import Claims
from stepback_server.jobs.event_log import EventLog
from stepback_server.jobs.job import Handler, Job, JobAnswer, NotNow
from stepback_server.jobs.lease import Lease
from stepback_server.jobs.lifecycle import Lifecycle
from stepback_server.jobs.searches import Searches
from stepback_server.jobs.steady import attempt
from stepback_server.jobs.tries import Tries
from stepback_server.jobs.writer import AnswerWriter
from stepback_server.storage.errors import StorageUnavailable

_log = logging.getLogger(__name__)

# Between looks for what other controllers have queued or cancelled.
_POLL_SECONDS = 1.0
# Seconds that a stop waits for what is paid to be written, and for cancelled jobs to end.
_SECONDS_TO_WRITE = 5.0


class Runner:
    """Keeps a number of jobs in flight until it is stopped."""

    def __init__(
        self,
        lease: Lease,
        claims: Claims,
        searches: Searches,
        lifecycle: Lifecycle,
        handlers: Mapping[str, Handler],
        find_tenant: Callable[[str], Tenant | None],
        tries: Tries,
        *,
        most_searches: int,
        most_lines: int,
    ) -> None:
        self._lease = lease
        self._claims = claims
        self._searches = searches
        self._lifecycle = lifecycle
        self._handlers = handlers
        self._find_tenant = find_tenant
        self._most_searches = most_searches
        self._most_lines = most_lines
        self._writer = AnswerWriter(lambda answered: claims.finish(lease.owner, answered))
        self._tries = tries
        self._running: dict[int, tuple[Job, asyncio.Task[None]]] = {}
        self._cancelled: set[int] = set()
        self._is_stopping = False
        # Held while jobs are claimed: those of the last claim must not be missed by a stop.
        self._claiming = asyncio.Lock()
        self._room = asyncio.Event()
        self._news = asyncio.Event()

    @property
    def running(self) -> int:
        """Jobs in flight here."""
        return len(self._running)

    def wake(self) -> None:
        """Look into the database now: something was queued or cancelled."""
        self._room.set()
        self._news.set()

    async def run(self) -> None:
        """Work until cancelled; `stop` first lets what is in flight end."""
        # Where an outage keeps it from being known, the first heartbeat finds that and begins anew.
        with suppress(StorageUnavailable):
            await self._lease.begin()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_alive())
            group.create_task(self._writer.run())
            group.create_task(self._claim_on())
            group.create_task(_again_and_again(self._advance, _POLL_SECONDS, self._news))

    async def stop(self, seconds: float) -> None:
        """Claim nothing more, wait so long for what is in flight, give the rest back. Answers that
        there are by then are written, unless the database is gone."""
        self._is_stopping = True
        # Those that were claimed as the stop began find a server that takes no more searches.
        self._tries.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(_SECONDS_TO_WRITE), self._claiming:
                pass
        tasks = [task for _, task in self._running.values()]
        # The second cancel ends what waits for the database.
        for patience in (seconds, _SECONDS_TO_WRITE):
            if tasks:
                await asyncio.wait(tasks, timeout=patience)
            for task in tasks:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(StorageUnavailable):
            await self._lease.end()

    async def _keep_alive(self) -> None:
        async def beat() -> None:
            if await self._lease.beat():
                return
            _log.warning("the lease was lost: what was in flight is another's now")
            # First what is in flight, then a new name: its answers must not be written under that.
            await self._drop_all()
            await self._lease.begin()

        await _again_and_again(beat, self._lease.seconds / 4, asyncio.Event())

    async def _drop_all(self) -> None:
        tasks = [task for _, task in self._running.values()]
        self._running.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _advance(self) -> None:
        """Move batches on, and end what was cancelled."""
        await self._lifecycle.advance(self._lease.owner)
        for number in await self._claims.to_cancel(self._lease.owner):
            if number in self._running:
                self._cancelled.add(number)
                self._running[number][1].cancel()

    async def _claim_on(self) -> None:
        async def claim() -> None:
            while not self._is_stopping:
                async with self._claiming:
                    if not await self._claim():
                        return

        await _again_and_again(claim, _POLL_SECONDS, self._room)

    async def _claim(self) -> bool:
        """Begin jobs as far as there is room; return True where there may be more."""
        owner = self._lease.owner
        lines = sum(1 for job, _ in self._running.values() if job.batch is not None)
        room_for_searches = self._most_searches - (len(self._running) - lines)
        room_for_lines = self._most_lines - lines
        # Many a transaction, rather than one for each line that ends.
        if room_for_lines < max(1, self._most_lines // 4):
            room_for_lines = 0
        if room_for_searches <= 0 and not room_for_lines:
            return False
        claimed = await self._claims.claim(owner, searches=room_for_searches, lines=room_for_lines)
        for job in claimed:
            self._running[job.number] = job, asyncio.create_task(self._work(job))
        return bool(claimed)

    async def _work(self, job: Job) -> None:
        answer: JobAnswer | NotNow | None = None
        try:
            answer = await self._answer_always(job)
            if self._is_stopping and isinstance(answer, NotNow):
                # Given back by `stop`, with the lease.
                return
            await self._writer.write(job, answer)
        except asyncio.CancelledError:
            # An answer is paid for: given back now, the job would be paid for again. To write it
            # twice changes nothing. A job without one is given back by `stop`, with the lease.
            if job.number in self._cancelled or (answer and job.number in self._running):
                await self._writer.write(job, answer)
            raise
        finally:
            self._cancelled.discard(job.number)
            if (held := self._running.get(job.number)) and held[0] is job:
                del self._running[job.number]
            self._room.set()

    async def _answer_always(self, job: Job) -> JobAnswer | NotNow:
        """The answer to a job; NotNow where its key has to wait, and others need not."""
        try:
            return await self._tries.until_answered(lambda: self._answer(job), may_leave=True)
        except NotNow as later:
            return later
        except ApiError as error:
            return JobAnswer.refusal(error)
        except Exception as error:  # A defect: without an answer it would run for ever.
            _log.error("a job ended in an unexpected error", exc_info=error)
            message = "An error of the server's own; it has been logged."
            return JobAnswer.refusal(ApiError("internal", message))

    async def _answer(self, job: Job) -> JobAnswer | NotNow:
        """Ask the handler once. Raises NotNow."""
        # Looked up again: the operator may change or withdraw a key meanwhile.
        tenant = self._find_tenant(job.tenant)
        if tenant is None:
            # Put back: another controller may know it still, or already.
            return NotNow(0.0, is_for_key=True)
        try:
            return await self._ask(job, tenant)
        except StorageUnavailable as error:
            _log.warning("a job waits for the database: %s", error)
            raise NotNow(_POLL_SECONDS) from error

    async def _ask(self, job: Job, tenant: Tenant) -> JobAnswer:
        handler, body = self._handlers[job.endpoint], json.loads(job.body)
        if job.batch is not None:
            return await handler(body, tenant, is_line=True, report=None)
        async with EventLog(self._searches, self._lease.owner, job.number) as log:
            return await handler(body, tenant, is_line=False, report=log.add)


async def _again_and_again(
    work: Callable[[], Coroutine[Any, Any, None]], seconds: float, bell: asyncio.Event
) -> None:
    """Work at this pace or when the bell rings, through outages and defects."""
    while True:
        bell.clear()
        await attempt(work)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await bell.wait()
