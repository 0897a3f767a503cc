"""Count of the jobs that wait, for the metrics and what scales by them."""

import asyncio
import time
from collections.abc import Callable, Collection

from sqlalchemy import func, select

from stepback_server.gateway.tenant import Tenant
from stepback_server.jobs.claims import claimable
from stepback_server.jobs.steady import attempt
from stepback_server.storage.database import Database
from stepback_server.storage.tables import CONTROLLERS, JOBS

_SECONDS_BETWEEN_LOOKS = 5.0
# A million rows take a while to count: no more than this share of the time.
_SHARE = 0.05


class Backlog:
    """Jobs without a claim that this controller could claim. `run` it in a task."""

    def __init__(
        self,
        database: Database,
        model: Callable[[], str],
        handlers: Collection[str],
        find_tenant: Callable[[str], Tenant | None],
    ) -> None:
        self._database = database
        self._model = model
        self._handlers = tuple(handlers)
        self._find_tenant = find_tenant
        self.share = 0.0
        """This controller's part of them, as of the last look: the sum over all is the whole where
        all serve one model and know the same keys."""

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            began = time.monotonic()
            await attempt(self._look)
            took = time.monotonic() - began
            await asyncio.sleep(max(_SECONDS_BETWEEN_LOOKS, took / _SHARE))

    async def _look(self) -> None:
        waiting = (
            select(JOBS.c.tenant, func.count())
            .where(*claimable(self._model(), self._handlers))
            .group_by(JOBS.c.tenant)
        )
        count = select(func.count()).select_from(CONTROLLERS)
        async with self._database.begin() as connection:
            by_key = (await connection.execute(waiting)).all()
            controllers = (await connection.execute(count)).scalar_one()
        # Those of a withdrawn key wait too, and no further controller would help them.
        jobs = sum(number for name, number in by_key if self._find_tenant(name) is not None)
        # Each controller sees them all; and there may be none that has registered yet.
        self.share = jobs / max(1, controllers)
