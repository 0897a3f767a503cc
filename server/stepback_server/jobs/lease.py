"""Lease of a controller on its jobs: its heartbeat, and those of others that stopped."""

import logging
import time
import uuid

from sqlalchemy import ColumnElement, Update, delete, insert, select, update

from stepback_server.jobs.claims import given_back
from stepback_server.jobs.job import State
from stepback_server.storage.database import Database
from stepback_server.storage.tables import BATCHES, CONTROLLERS, JOBS

_log = logging.getLogger(__name__)


class Lease:
    """One row that says that this process lives."""

    def __init__(self, database: Database, seconds: float) -> None:
        self._database = database
        self.seconds = seconds
        self.owner = ""
        # Since when, monotonic, heartbeats have come without a gap.
        self._begun = 0.0
        self._last = 0.0

    async def begin(self) -> None:
        """Register under a fresh name, which owns nothing yet."""
        self.owner = uuid.uuid4().hex
        async with self._database.begin() as connection:
            row = {"id": self.owner, "heartbeat": self._database.now}
            await connection.execute(insert(CONTROLLERS).values(row))
        self._begun = self._last = time.monotonic()

    async def beat(self) -> bool:
        """Renew the lease, and free what dead controllers held. Returns False where others took
        this controller for dead: what it has claimed is no longer its own."""
        async with self._database.begin() as connection:
            mine = update(CONTROLLERS).where(CONTROLLERS.c.id == self.owner)
            kept = await connection.execute(mine.values(heartbeat=self._database.now))
            if not kept.rowcount:
                return False
            now = time.monotonic()
            if now - self._last > self.seconds:
                self._begun = now
            self._last = now
            # After an outage of the database all heartbeats are old: let the others beat first.
            if now - self._begun < self.seconds:
                return True
            dead = CONTROLLERS.c.heartbeat < self._database.now - self.seconds
            # Without waiting: a controller that froze within a transaction still locks its rows.
            lost = select(CONTROLLERS.c.id).where(dead).with_for_update(skip_locked=True)
            await connection.execute(delete(CONTROLLERS).where(CONTROLLERS.c.id.in_(lost)))
            orphans = JOBS.c.owner.is_not(None) & _is_orphan()
            freed = await connection.execute(_freed(orphans, self._database.now, skip_locked=True))
            theirs = select(BATCHES.c.id).where(BATCHES.c.owner.not_in(select(CONTROLLERS.c.id)))
            free = BATCHES.c.id.in_(theirs.with_for_update(skip_locked=True))
            await connection.execute(update(BATCHES).where(free).values(owner=None))
            if freed.rowcount > 0:
                _log.warning("%d jobs of a lost controller go on", freed.rowcount)
        return True

    async def end(self) -> None:
        """Give back what is still claimed, and leave."""
        async with self._database.begin() as connection:
            mine = JOBS.c.owner == self.owner
            await connection.execute(_freed(mine, self._database.now))
            await connection.execute(
                update(BATCHES).where(BATCHES.c.owner == self.owner).values(owner=None)
            )
            await connection.execute(delete(CONTROLLERS).where(CONTROLLERS.c.id == self.owner))


def _is_orphan() -> ColumnElement[bool]:
    return JOBS.c.owner.not_in(select(CONTROLLERS.c.id))


def _freed(
    whose: ColumnElement[bool], now: ColumnElement[float], *, skip_locked: bool = False
) -> Update:
    return given_back(JOBS.c.state == State.RUNNING, whose, now=now, skip_locked=skip_locked)
