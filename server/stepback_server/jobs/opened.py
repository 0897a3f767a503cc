"""Jobs over an open database: its stores, and the runner of this process."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from stepback_server.gateway.tenant import Tenant
from stepback_server.jobs.backlog import Backlog
from stepback_server.jobs.batches import Batches
from stepback_server.jobs.claims import Claims
from stepback_server.jobs.files import Files
from stepback_server.jobs.job import Handler
from stepback_server.jobs.lease import Lease
from stepback_server.jobs.lifecycle import Lifecycle
from stepback_server.jobs.runner import Runner
from stepback_server.jobs.searches import Searches
from stepback_server.jobs.steady import attempt
from stepback_server.jobs.tries import Tries
from stepback_server.settings import Settings
from stepback_server.storage.database import Database

_log = logging.getLogger(__name__)
_DAY = 86_400
_SECONDS_BETWEEN_CLEANUPS = 60.0


@dataclass(slots=True)
class OpenedJobs:
    """Open stores of the routes; `close` it in the end."""

    database: Database
    searches: Searches
    files: Files
    batches: Batches
    claims: Claims
    runner: Runner
    backlog: Backlog
    keep_seconds: float
    _tasks: list[asyncio.Task[None]]

    @classmethod
    async def open(
        cls,
        settings: Settings,
        handlers: Mapping[str, Handler],
        model: Callable[[], str],
        find_tenant: Callable[[str], Tenant | None],
        tries: Tries,
    ) -> "OpenedJobs":
        """Open and migrate the database, and begin to run jobs. Raises InvalidInput and
        StorageUnavailable."""
        database = Database(settings.database_url.get_secret_value())
        try:
            await database.upgrade()
        except BaseException:
            await database.close()
            raise
        files, searches = Files(database), Searches(database, model)
        claims = Claims(database, model, handlers, find_tenant)
        keep_seconds = settings.job_days * _DAY
        runner = Runner(
            Lease(database, settings.lease_seconds),
            claims,
            searches,
            Lifecycle(
                database,
                files,
                most_lines=settings.batch_lines,
                most_bytes=settings.max_body_bytes,
                keep_seconds=keep_seconds,
            ),
            handlers,
            find_tenant,
            tries,
            most_searches=settings.max_searches,
            most_lines=settings.batch_searches,
        )
        batches = Batches(database, files, model)
        backlog = Backlog(database, model, handlers, find_tenant)
        jobs = cls(database, searches, files, batches, claims, runner, backlog, keep_seconds, [])
        for work in (runner.run(), backlog.run(), jobs.clean_up()):
            task = asyncio.create_task(work)
            task.add_done_callback(_failed)
            jobs._tasks.append(task)
        _log.info("jobs are kept in %s", database.name)
        return jobs

    async def clean_up(self) -> None:
        """Delete what has been kept long enough, now and then."""
        while True:
            await attempt(self.files.delete_expired)
            await attempt(lambda: self.searches.delete_ended(self.keep_seconds))
            await attempt(lambda: self.claims.end_unknown(self.keep_seconds))
            await asyncio.sleep(_SECONDS_BETWEEN_CLEANUPS)

    async def close(self, grace_seconds: float) -> None:
        """Let jobs in flight end for a while, give the others back, and close the database."""
        await self.runner.stop(grace_seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.database.close()


def _failed(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        _log.error("jobs are no longer run by this process", exc_info=error)
