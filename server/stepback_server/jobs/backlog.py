"""Count of the jobs that wait, for the metrics and what scales by them."""

import asyncio
import time
from collections.abc import Callable, Collection

from sqlalchemy import func, select

from stepback_server.jobs.job import State
from stepback_server.jobs.steady import attempt
from stepback_server.storage.database import Database
from stepback_server.storage.tables import CONTROLLERS, JOBS

_SECONDS_BETWEEN_LOOKS = 5.0
# A million rows take a while to count: no more than this share of the time.
_SHARE = 0.05


class Backlog:
    """Jobs of the served model without a claim. `run` it in a task."""

    def __init__(
        self, database: Database, model: Callable[[], str], handlers: Collection[str]
    ) -> None:
        self._database = database
        self._model = model
        self._handlers = tuple(handlers)
        self.share = 0.0
        """This controller's part of them, as of the last look: the sum over all is the whole."""

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            began = time.monotonic()
            await attempt(self._look)
            took = time.monotonic() - began
            await asyncio.sleep(max(_SECONDS_BETWEEN_LOOKS, took / _SHARE))

    async def _look(self) -> None:
        waiting = select(func.count()).where(
            JOBS.c.state == State.QUEUED,
            JOBS.c.model == self._model(),
            JOBS.c.endpoint.in_(self._handlers),
        )
        controllers = select(func.count()).select_from(CONTROLLERS)
        both = select(waiting.scalar_subquery(), controllers.scalar_subquery())
        async with self._database.begin() as connection:
            jobs, count = (await connection.execute(both)).one()
        # Each controller sees them all; and there may be none that has registered yet.
        self.share = jobs / max(1, count)
