"""Batches as their callers see them: adding, finding, listing, cancelling."""

import uuid
from collections.abc import Callable
from typing import Any

from sqlalchemy import case, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from stepback_core.schemas.jobs import (
    Batch,
    BatchCounts,
    BatchErrors,
    BatchList,
    BatchRequest,
    BatchStatus,
    BatchUsage,
    InputTokens,
    Order,
    OutputTokens,
)
from stepback_server.jobs.claims import cancel
from stepback_server.jobs.files import Files
from stepback_server.jobs.job import State
from stepback_server.jobs.pages import first, last, own, page
from stepback_server.storage.database import Database
from stepback_server.storage.tables import BATCHES, JOBS, AnyRow

_KIND = "batch"
EXPIRING = "expiring"
"""Ends like `cancelling`, but as `expired`; callers see `finalizing`."""
_WITH_LINES = (
    BatchStatus.IN_PROGRESS,
    BatchStatus.CANCELLING,
    BatchStatus.FINALIZING,
    EXPIRING,
)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
COUNTS = (
    func.count().label("total"),
    func.count(case((JOBS.c.status < 400, 1))).label("completed"),
    func.count(case((JOBS.c.status >= 400, 1))).label("failed"),
    *(
        func.coalesce(func.sum(JOBS.c[name]), 0).label(name)
        for name in ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
    ),
)
"""Sums over the lines of a batch."""


class Batches:
    """The batches of all tenants; one of another does not exist."""

    def __init__(self, database: Database, files: Files, model: Callable[[], str]) -> None:
        self._database = database
        self._files = files
        self._model = model

    async def add(self, tenant: str, request: BatchRequest) -> Batch:
        """Begin a batch, whose input file is read later. Raises ApiError for that file."""
        # Only that it is there: reading it may take long, and is the runner's.
        await self._files.find(tenant, request.input_file_id)
        id, now = f"batch_{uuid.uuid4().hex}", self._database.now
        window, kept = request.completion_window, request.output_expires_after
        async with self._database.begin() as connection:
            await connection.execute(
                insert(BATCHES).values(
                    id=id,
                    tenant=tenant,
                    model=self._model(),
                    endpoint=request.endpoint,
                    input_file=request.input_file_id,
                    window=window,
                    metadata=request.metadata,
                    status=BatchStatus.VALIDATING,
                    created=now,
                    keep_seconds=kept and kept.seconds,
                    expires=now + int(window[:-1]) * _UNITS[window[-1]],
                    times={},
                )
            )
        return await self.find(tenant, id)

    async def find(self, tenant: str, id: str) -> Batch:
        """Read a batch. Raises ApiError."""
        async with self._database.begin() as connection:
            row = await own(connection, BATCHES, _KIND, tenant, id)
            return _described(row, await counted(connection, row))

    async def list(
        self, tenant: str, *, limit: int, after: str | None, order: Order = Order.NEWEST
    ) -> BatchList:
        """Read a page of batches. Raises ApiError for `after`."""
        async with self._database.begin() as connection:
            rows, more = await page(
                connection, BATCHES, _KIND, tenant, limit=limit, after=after, order=order
            )
            data = [_described(row, await counted(connection, row)) for row in rows]
        return BatchList(data=data, has_more=more, first_id=first(data), last_id=last(data))

    async def cancel(self, tenant: str, id: str) -> Batch:
        """Cancel a batch that has not ended, what is in flight included. Raises ApiError."""
        async with self._database.begin() as connection:
            await own(connection, BATCHES, _KIND, tenant, id)
            running = (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS)
            if await move(connection, id, running, BatchStatus.CANCELLING, self._database):
                await cancel(connection, JOBS.c.batch == id, self._database.now)
        return await self.find(tenant, id)


async def move(
    connection: AsyncConnection,
    id: str,
    before: tuple[str, ...],
    after: str,
    database: Database,
    **values: Any,
) -> bool:
    """Give a batch another status, and note when; False where it had none of those before."""
    found = select(BATCHES.c.times, database.now.label("now")).where(
        BATCHES.c.id == id, BATCHES.c.status.in_(before)
    )
    row = (await connection.execute(found.with_for_update())).one_or_none()
    if row is None:
        return False
    # Read and written under one row lock: two controllers move the same batch.
    times = row.times | {after: row.now}
    changed = update(BATCHES).where(BATCHES.c.id == id)
    await connection.execute(changed.values(status=after, times=times, **values))
    return True


async def counted(connection: AsyncConnection, batch: AnyRow) -> AnyRow:
    """Its counts and tokens: what its lines say, or once they are gone, what was kept."""
    # Lines are deleted once their files are written; the sums were kept with the batch.
    if batch.status not in _WITH_LINES:
        return batch
    lines = select(*COUNTS).where(JOBS.c.batch == batch.id, JOBS.c.state != State.HELD)
    return (await connection.execute(lines)).one()


def _described(row: AnyRow, counts: AnyRow) -> Batch:
    # OpenAI's clients know no such status.
    status = BatchStatus.FINALIZING if row.status == EXPIRING else BatchStatus(row.status)
    return Batch(
        id=row.id,
        endpoint=row.endpoint,
        model=row.model,
        errors=BatchErrors(data=row.errors) if row.errors else None,
        input_file_id=row.input_file,
        completion_window=row.window,
        status=status,
        output_file_id=row.output_file,
        error_file_id=row.error_file,
        created_at=int(row.created),
        expires_at=int(row.expires),
        request_counts=BatchCounts(
            total=counts.total, completed=counts.completed, failed=counts.failed
        ),
        usage=BatchUsage(
            input_tokens=counts.input_tokens,
            input_tokens_details=InputTokens(cached_tokens=counts.cached_tokens),
            output_tokens=counts.output_tokens,
            output_tokens_details=OutputTokens(reasoning_tokens=counts.reasoning_tokens),
            total_tokens=counts.input_tokens + counts.output_tokens,
        ),
        metadata=row.metadata,
        in_progress_at=_time(row, "in_progress"),
        finalizing_at=_time(row, "finalizing"),
        completed_at=_time(row, "completed"),
        failed_at=_time(row, "failed"),
        expired_at=_time(row, "expired"),
        cancelling_at=_time(row, "cancelling"),
        cancelled_at=_time(row, "cancelled"),
    )


def _time(row: AnyRow, status: str) -> int | None:
    return int(row.times[status]) if status in row.times else None
