"""Jobs that are opened when they are first needed, so that a server without them starts as fast."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stepback_server.errors import ApiError, jobs_not_offered, storage_unavailable
from stepback_server.gateway.tenant import Tenant
from stepback_server.jobs.job import Handler
from stepback_server.jobs.tries import Tries
from stepback_server.settings import Settings

if TYPE_CHECKING:
    from stepback_server.jobs.opened import OpenedJobs

_log = logging.getLogger(__name__)
_SQLITE = "sqlite:///"
_SECONDS_BETWEEN_TRIES = 5.0


class Jobs:
    """The jobs of a server. `run` it in a task; `opened` opens them where that was not needed yet.

    There is work to go on with where the database is on another host, or its file exists. Without a
    database there are no jobs.
    """

    def __init__(
        self,
        settings: Settings,
        handlers: Mapping[str, Handler],
        model: Callable[[], str],
        find_tenant: Callable[[str], Tenant | None],
        tries: Tries,
    ) -> None:
        self.handlers = handlers
        self._settings = settings
        self._url = settings.database_url.get_secret_value()
        self._model = model
        self._find_tenant = find_tenant
        self._tries = tries
        self._opening = asyncio.Lock()
        self._opened: OpenedJobs | None = None
        self._is_closed = False

    async def run(self) -> None:
        """Open the jobs that an earlier process may have left, as soon as that is possible."""
        url = self._url
        if not url:
            return
        if url.startswith(_SQLITE) and not await asyncio.to_thread(
            Path(url.removeprefix(_SQLITE)).exists
        ):
            return
        while True:
            try:
                await self.opened()
                return
            except ApiError:
                await asyncio.sleep(_SECONDS_BETWEEN_TRIES)

    async def opened(self) -> "OpenedJobs":
        """The open jobs. Raises ApiError where there is no database, or it cannot be used now."""
        if not self._url:
            raise jobs_not_offered()
        async with self._opening:
            if self._is_closed:
                raise storage_unavailable()
            if self._opened is None:
                self._opened = await self._open()
            return self._opened

    async def _open(self) -> "OpenedJobs":
        # Imported here: SQLAlchemy and Alembic take half a second, which not every server needs.
        await asyncio.to_thread(_import)
        from stepback_core.errors import InvalidInput
        from stepback_server.jobs.opened import OpenedJobs
        from stepback_server.storage.errors import StorageUnavailable

        try:
            return await OpenedJobs.open(
                self._settings, self.handlers, self._model, self._find_tenant, self._tries
            )
        except (InvalidInput, StorageUnavailable) as error:
            _log.error("jobs are not possible: %s", error)
            raise storage_unavailable() from error

    @property
    def waiting(self) -> float:
        """This controller's share of the jobs without a claim; 0 where none were opened."""
        return self._opened.backlog.share if self._opened else 0

    @property
    def running(self) -> int:
        """Jobs in flight in this process."""
        return self._opened.runner.running if self._opened else 0

    async def close(self, grace_seconds: float) -> None:
        """Let what is in flight end for a while, and give the rest back."""
        async with self._opening:
            self._is_closed = True
            if self._opened is not None:
                await self._opened.close(grace_seconds)


def _import() -> None:
    import stepback_server.jobs.opened  # noqa: F401 # pyright: ignore[reportUnusedImport]
