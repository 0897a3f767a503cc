"""Background searches: adding, finding, listing, cancelling, and their events by number."""

import json
import uuid
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

from sqlalchemy import Select, delete, func, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from stepback_core.events import SolveEvent
from stepback_core.schemas import ErrorBody, ErrorDetail, SolveResult
from stepback_core.schemas.jobs import JobStatus, Order, SearchJob, SearchJobList, SearchProgress
from stepback_server.errors import idempotency_mismatch
from stepback_server.jobs.claims import cancel
from stepback_server.jobs.job import State
from stepback_server.jobs.pages import first, last, own, page
from stepback_server.storage.database import Database
from stepback_server.storage.tables import EVENTS, JOBS, AnyRow

_KIND = "search"
_EVENT_ROWS = 8
"""Rows of events that are looked through for the last totals; the first has them nearly always."""


class Searches:
    """The background searches of all tenants; one of another does not exist."""

    def __init__(self, database: Database, model: Callable[[], str]) -> None:
        self._database = database
        self._model = model

    async def add(self, tenant: str, endpoint: str, body: str, key: str | None = None) -> SearchJob:
        """Queue a search, or find the one that was queued with this Idempotency-Key.

        Raises ApiError where the key was used for another request."""
        id = f"search-{_name(tenant, key)}"
        new = self._database.insert_new(JOBS).values(
            id=id,
            tenant=tenant,
            model=self._model(),
            endpoint=endpoint,
            body=body,
            state=State.QUEUED,
            created=self._database.now,
        )
        async with self._database.begin() as connection:
            # First, so that of two controllers with one key the later finds what the other wrote.
            await connection.execute(new)
            queued = await connection.execute(select(JOBS.c.body).where(JOBS.c.id == id))
            if queued.scalar_one() != body:
                raise idempotency_mismatch()
        return await self.find(tenant, id)

    async def find(self, tenant: str, id: str) -> SearchJob:
        """Read a search with its result or its progress. Raises ApiError."""
        async with self._database.begin() as connection:
            row = await self._own(connection, tenant, id)
            progress = await _progress(connection, [row])
        told = {"progress": progress.get(row.number), "error": _error(row), "result": _result(row)}
        return _described(row).model_copy(update=told)

    async def cancel(self, tenant: str, id: str) -> SearchJob:
        """Cancel a search that has not ended. Raises ApiError."""
        async with self._database.begin() as connection:
            await self._own(connection, tenant, id)
            await cancel(connection, JOBS.c.id == id, self._database.now)
        return await self.find(tenant, id)

    async def append(
        self, owner: str, number: int, first: int, events: Sequence[SolveEvent]
    ) -> None:
        """Keep events, numbered from `first`, while the search is the owner's."""
        data = "\n".join(json.dumps(event.model_dump(mode="json")) for event in events)
        row = {"job": number, "first": first, "count": len(events), "data": data}
        # Locked, so that no other controller begins in between: two would count on from one number.
        mine = select(JOBS.c.number).where(JOBS.c.number == number, JOBS.c.owner == owner)
        async with self._database.begin() as connection:
            if (await connection.execute(mine.with_for_update())).one_or_none() is None:
                return
            # Where an outage hid that it was kept, it is kept once.
            await connection.execute(self._database.insert_new(EVENTS).values(row))

    async def next_event(self, number: int) -> int:
        """The number of the next event: an attempt goes on counting where a lost one ended."""
        async with self._database.begin() as connection:
            return await _next_event(connection, number)

    async def events(
        self, tenant: str, id: str, after: int
    ) -> tuple[list[tuple[int, dict[str, Any]]], bool]:
        """Read the events after a number, and True where the search has ended with the last of
        them. Raises ApiError."""
        async with self._database.begin() as connection:
            job = await self._own(connection, tenant, id)
            wanted = (
                select(EVENTS.c.first, EVENTS.c.data)
                .where(EVENTS.c.job == job.number, EVENTS.c.first + EVENTS.c.count > after + 1)
                .order_by(EVENTS.c.first)
            )
            rows = (await connection.execute(wanted)).all()
            following = await _next_event(connection, job.number)
        found: list[tuple[int, dict[str, Any]]] = [
            (number, json.loads(line))
            for row in rows
            for number, line in enumerate(row.data.split("\n"), row.first)
            if number > after
        ]
        last = _last_event(job)
        if last is not None and following > after:
            found.append((following, last))
        return found, last is not None

    async def delete_ended(self, seconds: float) -> None:
        """Delete the searches of all tenants that ended so long ago."""
        over = JOBS.c.ended < self._database.now - seconds
        async with self._database.begin() as connection:
            await connection.execute(delete(JOBS).where(JOBS.c.batch.is_(None), over))

    async def list(
        self, tenant: str, *, limit: int, after: str | None, order: Order = Order.NEWEST
    ) -> SearchJobList:
        """Read a page of searches without their results. Raises ApiError for `after`."""
        where = [JOBS.c.batch.is_(None)]
        async with self._database.begin() as connection:
            rows, more = await page(
                connection, JOBS, _KIND, tenant, limit=limit, after=after, order=order, where=where
            )
            progress = await _progress(connection, rows)
        data = [
            _described(row).model_copy(
                update={"progress": progress.get(row.number), "error": _error(row)}
            )
            for row in rows
        ]
        return SearchJobList(data=data, has_more=more, first_id=first(data), last_id=last(data))

    async def _own(self, connection: AsyncConnection, tenant: str, id: str) -> AnyRow:
        return await own(connection, JOBS, _KIND, tenant, id, JOBS.c.batch.is_(None))


def _name(tenant: str, key: str | None) -> str:
    """A fresh name, or always the same for a tenant's key."""
    if key is None:
        return uuid.uuid4().hex
    return sha256(f"{tenant}\0{key}".encode()).hexdigest()[:32]


async def _next_event(connection: AsyncConnection, number: int) -> int:
    following = select(func.max(EVENTS.c.first + EVENTS.c.count)).where(EVENTS.c.job == number)
    return int((await connection.execute(following)).scalar() or 1)


async def _progress(
    connection: AsyncConnection, rows: Sequence[AnyRow]
) -> dict[int, SearchProgress]:
    """The totals of the last `usage` event that is kept of each search that has one."""
    # One with a result has all its totals there.
    numbers = [row.number for row in rows if _status(row) is not JobStatus.COMPLETED]
    found: dict[int, SearchProgress] = {}
    if not numbers:
        return found
    for job, data in (await connection.execute(_last_rows(numbers))).all():
        if job not in found and (totals := _last_totals(data)):
            found[job] = totals
    return found


def _last_rows(numbers: Sequence[int]) -> Select[int, str]:
    """The last rows of events of each of these searches, the last first."""
    # A select each: a window over them all would read every event, and there may be thousands.
    last = [
        select(EVENTS.c.job, EVENTS.c.first, EVENTS.c.data)
        .where(EVENTS.c.job == number)
        .order_by(EVENTS.c.first.desc())
        .limit(_EVENT_ROWS)
        .subquery()
        for number in numbers
    ]
    rows = union_all(*(select(each) for each in last)).subquery()
    return select(rows.c.job, rows.c.data).order_by(rows.c.first.desc())


def _last_totals(data: str) -> SearchProgress | None:
    for line in reversed(data.split("\n")):
        if (event := json.loads(line))["type"] == "usage":
            return SearchProgress.model_validate(event)
    return None


def _status(row: AnyRow) -> JobStatus:
    match State(row.state):
        case State.DONE:
            return JobStatus.COMPLETED if row.status < 400 else JobStatus.FAILED
        case State.CANCELLED:
            return JobStatus.CANCELLED
        case State.RUNNING:
            return JobStatus.RUNNING
        case State.QUEUED | State.HELD:
            return JobStatus.QUEUED


def _described(row: AnyRow) -> SearchJob:
    status = _status(row)
    return SearchJob(
        id=row.id,
        status=status,
        created_at=int(row.created),
        started_at=None if row.started is None else int(row.started),
        ended_at=None if row.ended is None else int(row.ended),
        attempts=row.attempts,
        request=json.loads(row.body),
        generated_tokens=row.output_tokens,
        cancelling=row.cancelling and status is JobStatus.RUNNING,
    )


def _result(row: AnyRow) -> SolveResult | None:
    completed = _status(row) is JobStatus.COMPLETED
    return SolveResult.model_validate_json(row.answer) if completed else None


def _error(row: AnyRow) -> ErrorDetail | None:
    failed = _status(row) is JobStatus.FAILED
    return ErrorBody.model_validate_json(row.answer).error if failed else None


def _last_event(row: AnyRow) -> dict[str, Any] | None:
    """Last event of a search that has ended."""
    match _status(row):
        case JobStatus.COMPLETED:
            return {"type": "result", "result": json.loads(row.answer)}
        case JobStatus.FAILED:
            error = ErrorBody.model_validate_json(row.answer).error.model_dump(mode="json")
            return {"type": "error", "status": row.status, "error": error}
        case JobStatus.CANCELLED:
            return {"type": "cancelled"}
        case _:
            return None
