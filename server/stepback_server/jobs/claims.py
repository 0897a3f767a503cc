"""Claiming jobs and writing their answers, each exactly once."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from sqlalchemy import BindParameter, ColumnElement, Update, bindparam, case, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from stepback_server.jobs.job import OPEN, Job, JobAnswer, State, Tokens
from stepback_server.storage.database import Database
from stepback_server.storage.tables import BATCHES, JOBS, AnyRow


class Claims:
    """Jobs for one controller, of the model that it serves and of handlers that it has."""

    def __init__(
        self, database: Database, model: Callable[[], str], handlers: Collection[str]
    ) -> None:
        self._database = database
        self._model = model
        self._handlers = tuple(handlers)
        # In memory: whose turn it is may differ between controllers, and is forgotten with one.
        self._last_tenant = ""

    async def claim(self, owner: str, *, searches: int, lines: int) -> list[Job]:
        """Claim up to this many background searches and lines of batches, the oldest first."""
        claimed: list[Job] = []
        async with self._database.begin() as connection:
            if searches > 0:
                claimed += await self._claim(connection, owner, searches, JOBS.c.batch.is_(None))
            if lines > 0:
                claimed += await self._lines(connection, owner, lines)
        return claimed

    async def _lines(self, connection: AsyncConnection, owner: str, most: int) -> list[Job]:
        """Lines of one tenant's oldest batch; tenants take turns."""
        for tenant, batch in self._in_turn(await self._batches(connection)):
            claimed = await self._claim(connection, owner, most, JOBS.c.batch == batch)
            if claimed:
                self._last_tenant = tenant
                return claimed
        return []

    async def _batches(self, connection: AsyncConnection) -> Sequence[AnyRow]:
        """Batches with lines to do, by tenant and age."""
        open_ones = (
            select(BATCHES.c.tenant, BATCHES.c.id)
            .where(BATCHES.c.status == "in_progress", BATCHES.c.model == self._model())
            .order_by(BATCHES.c.tenant, BATCHES.c.created)
        )
        return (await connection.execute(open_ones)).all()

    def _in_turn(self, batches: Sequence[AnyRow]) -> list[tuple[str, str]]:
        """The batches of the tenants after the last one that was served, then the others."""
        pairs = [(str(row.tenant), str(row.id)) for row in batches]
        later = [pair for pair in pairs if pair[0] > self._last_tenant]
        return later + [pair for pair in pairs if pair[0] <= self._last_tenant]

    async def _claim(
        self, connection: AsyncConnection, owner: str, most: int, of: ColumnElement[bool]
    ) -> list[Job]:
        free = (
            select(JOBS.c.number)
            .where(
                of,
                JOBS.c.state == State.QUEUED,
                JOBS.c.model == self._model(),
                JOBS.c.endpoint.in_(self._handlers),
            )
            .order_by(JOBS.c.number)
            .limit(most)
            # Controllers that claim at the same moment take different rows, and wait for none.
            .with_for_update(skip_locked=True)
        )
        claimed = await connection.execute(
            update(JOBS)
            .where(JOBS.c.number.in_(free))
            .values(
                state=State.RUNNING,
                owner=owner,
                attempts=JOBS.c.attempts + 1,
                started=self._database.now,
            )
            .returning(
                JOBS.c.number, JOBS.c.id, JOBS.c.tenant, JOBS.c.batch, JOBS.c.endpoint, JOBS.c.body
            )
        )
        # RETURNING promises no order.
        return [Job(*row) for row in sorted(claimed.all())]

    async def finish(self, owner: str, answered: Sequence[tuple[Job, JobAnswer | None]]) -> None:
        """Write answers, None for what was cancelled, of the jobs that are still the owner's."""
        # By owner: an answer of a controller that was taken for dead is dropped, as another has the
        # job by now.
        mine = (JOBS.c.number == bindparam("of"), JOBS.c.owner == bindparam("by"))
        ended = update(JOBS).where(*mine, JOBS.c.state == State.RUNNING)
        # In order, as all who change many rows: else two of them could wait for each other.
        by_number = sorted(answered, key=lambda each: each[0].number)
        rows = [{"of": job.number, "by": owner} | _ended(answer) for job, answer in by_number]
        columns: dict[str, BindParameter[Any]] = {
            name: bindparam(name) for name in rows[0] if name not in ("of", "by")
        }
        async with self._database.begin() as connection:
            await connection.execute(
                ended.values(columns | {"owner": None, "ended": self._database.now}), rows
            )

    async def to_cancel(self, owner: str) -> set[int]:
        """Numbers of the claimed jobs that were cancelled."""
        # Polled by its controller: a caller may have cancelled it at any other one.
        asked = select(JOBS.c.number).where(JOBS.c.owner == owner, JOBS.c.cancelling)
        async with self._database.begin() as connection:
            return set((await connection.execute(asked)).scalars())

    async def waiting(self) -> int:
        """Count the jobs without a claim, for the metrics."""
        count = select(func.count()).where(JOBS.c.state == State.QUEUED)
        async with self._database.begin() as connection:
            return int((await connection.execute(count)).scalar_one())


def in_order(*where: ColumnElement[bool]) -> ColumnElement[bool]:
    """Jobs, locked by number: who changes many at once waits for another, never in a circle."""
    found = select(JOBS.c.number).where(*where).order_by(JOBS.c.number)
    return JOBS.c.number.in_(found.with_for_update())


def given_back(*where: ColumnElement[bool], now: ColumnElement[float]) -> Update:
    """The change that puts jobs back into the queue, or ends them where they are to be."""
    return (
        update(JOBS)
        .where(in_order(*where))
        .values(
            state=case((JOBS.c.cancelling, State.CANCELLED), else_=State.QUEUED),
            ended=case((JOBS.c.cancelling, now), else_=None),
            owner=None,
        )
    )


async def cancel(connection: AsyncConnection, of: ColumnElement[bool], now: Any) -> None:
    """Cancel jobs: the queued at once, the running through the controller that has them."""
    queued = JOBS.c.state.in_((State.QUEUED, State.HELD))
    await connection.execute(
        update(JOBS)
        .where(in_order(of, JOBS.c.state.in_((*OPEN, State.HELD))))
        .values(
            state=case((queued, State.CANCELLED), else_=JOBS.c.state),
            ended=case((queued, now), else_=None),
            cancelling=True,
        )
    )


def _ended(answer: JobAnswer | None) -> dict[str, Any]:
    tokens = Tokens() if answer is None else answer.tokens
    return {
        "state": State.CANCELLED if answer is None else State.DONE,
        "status": None if answer is None else answer.status,
        "answer": None if answer is None else answer.content,
        "input_tokens": tokens.input,
        "cached_tokens": tokens.cached,
        "output_tokens": tokens.output,
        "reasoning_tokens": tokens.reasoning,
    }
