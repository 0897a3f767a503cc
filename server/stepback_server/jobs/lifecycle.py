"""The life of a batch: its file is read, its lines are done, its files are written."""

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

from sqlalchemy import and_, delete, exists, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from stepback_core.schemas.jobs import BatchError, BatchStatus
from stepback_server.errors import ApiError
from stepback_server.jobs.batches import COUNTS, EXPIRING, move
from stepback_server.jobs.claims import cancel
from stepback_server.jobs.files import Files, FileWriter
from stepback_server.jobs.job import OPEN, State
from stepback_server.jobs.lines import LineReader, output_line
from stepback_server.storage.database import Database
from stepback_server.storage.errors import StorageUnavailable
from stepback_server.storage.tables import BATCHES, JOBS, AnyRow

_log = logging.getLogger(__name__)
_PAGE = 500
_SECONDS_BETWEEN_TRIES = 60.0
_ENDS = {
    BatchStatus.FINALIZING.value: BatchStatus.COMPLETED,
    BatchStatus.CANCELLING.value: BatchStatus.CANCELLED,
    EXPIRING: BatchStatus.EXPIRED,
}


class Lifecycle:
    """Moves batches on, of any tenant and any model; `advance` is called again and again."""

    def __init__(
        self,
        database: Database,
        files: Files,
        *,
        most_lines: int,
        most_bytes: int,
        keep_seconds: float,
    ) -> None:
        """`most_bytes`: of one line; `keep_seconds`: how long output files are kept."""
        self._database = database
        self._files = files
        self._most_lines = most_lines
        self._most_bytes = most_bytes
        self._keep_seconds = keep_seconds
        self._resting: dict[str, float] = {}
        """Until when batches wait at which this process had an unexpected error."""

    async def advance(self, owner: str) -> None:
        """Take every batch one step further that waits for one."""
        await self._expire()
        await self._close()
        validating = (BatchStatus.VALIDATING,)
        for statuses, work in ((validating, self._validate), (tuple(_ENDS), self._finalize)):
            while (batch := await self._claim(owner, statuses)) is not None:
                await self._do(work, batch)

    async def _do(self, work: Callable[[AnyRow], Awaitable[None]], batch: AnyRow) -> None:
        try:
            await work(batch)
        except StorageUnavailable:
            raise
        except Exception as error:  # A defect at one batch must not hold up the others.
            _log.error("batch %s will be tried again", batch.id, exc_info=error)
            self._resting[batch.id] = time.monotonic() + _SECONDS_BETWEEN_TRIES
            await self._tell(batch)

    async def _tell(self, batch: AnyRow) -> None:
        """Say in the batch that it does not go on now, and leave it to any controller."""
        message = "An error of the server's own; it has been logged, and the batch is tried again."
        told = BatchError(code="internal", line=None, message=message, param=None).model_dump()
        mine = update(BATCHES).where(BATCHES.c.id == batch.id, BATCHES.c.owner == batch.owner)
        async with self._database.begin() as connection:
            await connection.execute(mine.values(owner=None, errors=[told]))

    async def _expire(self) -> None:
        running = (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS)
        late = (
            select(BATCHES.c.id)
            .where(BATCHES.c.status.in_(running), BATCHES.c.expires <= self._database.now)
            .order_by(BATCHES.c.id)
        )
        async with self._database.begin() as connection:
            for id in (await connection.execute(late)).scalars().all():
                await move(connection, id, running, EXPIRING, self._database)
                await cancel(connection, JOBS.c.batch == id, self._database.now)

    async def _close(self) -> None:
        """Begin to finalize the batches whose last line is done."""
        done = select(BATCHES.c.id).where(
            BATCHES.c.status == BatchStatus.IN_PROGRESS, ~_has_lines(*OPEN, State.HELD)
        )
        async with self._database.begin() as connection:
            for id in (await connection.execute(done)).scalars().all():
                before = (BatchStatus.IN_PROGRESS,)
                await move(connection, id, before, BatchStatus.FINALIZING, self._database)

    async def _claim(self, owner: str, statuses: tuple[str, ...]) -> AnyRow | None:
        # Its own ones too: at those an outage broke the work off.
        free_or_mine = or_(BATCHES.c.owner.is_(None), BATCHES.c.owner == owner)
        now = time.monotonic()
        self._resting = {id: until for id, until in self._resting.items() if until > now}
        free = (
            select(BATCHES.c.id)
            .where(BATCHES.c.status.in_(statuses), free_or_mine, ~_has_lines(*OPEN))
            .where(BATCHES.c.id.not_in(self._resting))
            .order_by(BATCHES.c.created)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        async with self._database.begin() as connection:
            claimed = await connection.execute(
                update(BATCHES)
                .where(BATCHES.c.id.in_(free.scalar_subquery()))
                .values(owner=owner)
                .returning(*BATCHES.c)
            )
            return claimed.one_or_none()

    async def _validate(self, batch: AnyRow) -> None:
        """Make a job of each line, or fail the batch for the faults of its file."""
        reader = LineReader(batch.endpoint, self._most_lines, self._most_bytes)
        async with self._database.begin() as connection:
            if not await _is_held(connection, batch):
                return
            # Those of a controller that was lost in the middle of this.
            await connection.execute(delete(JOBS).where(JOBS.c.batch == batch.id))
        try:
            async for rows in self._rows(batch, reader):
                async with self._database.begin() as connection:
                    if not await _is_held(connection, batch):
                        return
                    await connection.execute(insert(JOBS), rows)
            # Where it was deleted meanwhile, its end is missing.
            await self._files.find(batch.tenant, batch.input_file)
        except ApiError:
            message = "input_file_id: the file was deleted"
            error = BatchError(
                code="file_not_found", line=None, message=message, param="input_file_id"
            )
            reader.errors.append(error)
        async with self._database.begin() as connection:
            if await _is_held(connection, batch):
                await self._begin(connection, batch, reader.errors)

    async def _rows(
        self, batch: AnyRow, reader: LineReader
    ) -> AsyncGenerator[list[dict[str, Any]]]:
        async for chunk in self._files.content(batch.tenant, batch.input_file):
            # In a thread: a million bytes of JSON would hold up every search.
            lines = await asyncio.to_thread(list, reader.read(chunk))
            rows = [_row(batch, number, line) for number, line in lines]
            for first in range(0, len(rows), _PAGE):
                yield rows[first : first + _PAGE]
        if rows := [_row(batch, number, line) for number, line in reader.end()]:
            yield rows

    async def _begin(
        self, connection: AsyncConnection, batch: AnyRow, errors: list[BatchError]
    ) -> None:
        before, mine = (BatchStatus.VALIDATING,), JOBS.c.batch == batch.id
        if errors:
            told = [error.model_dump() for error in errors]
            await connection.execute(delete(JOBS).where(mine))
            failed = BatchStatus.FAILED
            await move(connection, batch.id, before, failed, self._database, errors=told)
        elif await move(
            connection, batch.id, before, BatchStatus.IN_PROGRESS, self._database, errors=None
        ):
            held = update(JOBS).where(mine, JOBS.c.state == State.HELD)
            await connection.execute(held.values(state=State.QUEUED))
        else:  # It was cancelled or has expired meanwhile.
            await cancel(connection, mine, self._database.now)
        await connection.execute(update(BATCHES).where(BATCHES.c.id == batch.id).values(owner=None))

    async def _finalize(self, batch: AnyRow) -> None:
        """Write the files, keep the counts, drop the lines: all in one transaction."""
        ended = _ENDS[batch.status]
        async with self._database.begin() as connection:
            if not await _is_held(connection, batch):
                return
            summed = await connection.execute(select(*COUNTS).where(JOBS.c.batch == batch.id))
            counts = summed.mappings().one()
            output, errors = await self._write(connection, batch, ended is BatchStatus.EXPIRED)
            await move(
                connection,
                batch.id,
                (batch.status,),
                ended,
                self._database,
                owner=None,
                errors=None,
                output_file=output,
                error_file=errors,
                **{str(name): value for name, value in counts.items()},
            )
            await connection.execute(delete(JOBS).where(JOBS.c.batch == batch.id))
        _log.info("batch %s: %s, %d lines", batch.id, ended, counts["total"])

    async def _write(
        self, connection: AsyncConnection, batch: AnyRow, expired: bool
    ) -> tuple[str | None, str | None]:
        """The ids of output file and error file; None for one without a line."""
        writers: dict[bool, FileWriter] = {}
        last = 0
        while True:
            wanted = (
                select(JOBS)
                .where(JOBS.c.batch == batch.id, JOBS.c.line > last)
                .order_by(JOBS.c.line)
                .limit(_PAGE)
            )
            rows = (await connection.execute(wanted)).all()
            if not rows:
                break
            lines = await asyncio.to_thread(_output_lines, rows, expired)
            for line, is_output in lines:
                if is_output not in writers:
                    writers[is_output] = await self._writer(connection, batch, is_output)
                await writers[is_output].write(line)
            last = rows[-1].line
        for writer in writers.values():
            await writer.end()
        ids = {is_output: writer.id for is_output, writer in writers.items()}
        return ids.get(True), ids.get(False)

    async def _writer(
        self, connection: AsyncConnection, batch: AnyRow, is_output: bool
    ) -> FileWriter:
        writer = FileWriter(connection, self._database.now, batch.tenant)
        name = f"{batch.id}_{'output' if is_output else 'error'}.jsonl"
        await writer.begin(name, "batch_output", batch.keep_seconds or self._keep_seconds)
        return writer


async def _is_held(connection: AsyncConnection, batch: AnyRow) -> bool:
    """Lock a batch for a transaction; False where it is another controller's by now, which took
    the one that claimed it for dead."""
    mine = select(BATCHES.c.id).where(BATCHES.c.id == batch.id, BATCHES.c.owner == batch.owner)
    return (await connection.execute(mine.with_for_update())).one_or_none() is not None


def _has_lines(*states: State) -> Any:
    return exists().where(and_(JOBS.c.batch == BATCHES.c.id, JOBS.c.state.in_(states)))


def _output_lines(rows: Sequence[AnyRow], expired: bool) -> list[tuple[bytes, bool]]:
    return [output_line(row, expired=expired) for row in rows]


def _row(batch: AnyRow, number: int, line: Any) -> dict[str, Any]:
    return {
        "id": uuid.uuid4().hex,
        "tenant": batch.tenant,
        "model": batch.model,
        "batch": batch.id,
        "line": number,
        "custom_id": line.custom_id,
        "endpoint": batch.endpoint,
        "body": json.dumps(line.body, separators=(",", ":")),
        "state": State.HELD,
        "created": batch.created,
    }
