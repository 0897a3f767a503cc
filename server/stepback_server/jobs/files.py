"""Files in the database, in chunks, so that every controller has them."""

import uuid
from collections.abc import AsyncGenerator, AsyncIterable
from typing import get_args

from sqlalchemy import ColumnElement, delete, false, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from stepback_core.schemas.jobs import FileDeleted, FileList, FileObject, FilePurpose, Order
from stepback_server.errors import unknown_id
from stepback_server.jobs.pages import first, last, own, page
from stepback_server.storage.database import Database
from stepback_server.storage.tables import CHUNKS, FILES, AnyRow

CHUNK = 1 << 20
_KIND = "file"


class Files:
    """The files of all tenants; a file of another does not exist."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self, tenant: str, name: str, content: AsyncIterable[bytes], seconds: float | None
    ) -> FileObject:
        """Keep an input file for `seconds`, or until it is deleted."""
        async with self._database.begin() as connection:
            writer = FileWriter(connection, self._database.now, tenant)
            await writer.begin(name, "batch", seconds)
            async for part in content:
                await writer.write(part)
            await writer.end()
        return await self.find(tenant, writer.id)

    async def find(self, tenant: str, id: str) -> FileObject:
        """Read a file's description. Raises ApiError."""
        async with self._database.begin() as connection:
            return _described(await self._own(connection, tenant, id))

    async def list(
        self,
        tenant: str,
        *,
        limit: int,
        after: str | None,
        purpose: str | None,
        order: Order = Order.NEWEST,
    ) -> FileList:
        """Read a page of descriptions. Raises ApiError for `after`."""
        where = [self._is_alive()]
        if purpose is not None:
            where.append(
                FILES.c.purpose == purpose if purpose in get_args(FilePurpose) else false()
            )
        async with self._database.begin() as connection:
            rows, more = await page(
                connection, FILES, _KIND, tenant, limit=limit, after=after, order=order, where=where
            )
        data = [_described(row) for row in rows]
        return FileList(data=data, has_more=more, first_id=first(data), last_id=last(data))

    async def content(self, tenant: str, id: str) -> AsyncGenerator[bytes]:
        """Give a file's content chunk by chunk; ends early where it is deleted meanwhile.

        Raises ApiError before the first chunk."""
        await self.find(tenant, id)
        number = 0
        while True:
            chunk = select(CHUNKS.c.content).where(CHUNKS.c.file == id, CHUNKS.c.number == number)
            async with self._database.begin() as connection:
                content = (await connection.execute(chunk)).scalar_one_or_none()
            if content is None:
                return
            yield content
            number += 1

    async def delete(self, tenant: str, id: str) -> FileDeleted:
        """Delete a file. Raises ApiError."""
        async with self._database.begin() as connection:
            await self._own(connection, tenant, id)
            await connection.execute(delete(FILES).where(FILES.c.id == id))
        return FileDeleted(id=id)

    async def delete_expired(self) -> None:
        """Delete the files of all tenants whose time is over."""
        async with self._database.begin() as connection:
            await connection.execute(delete(FILES).where(FILES.c.expires <= self._database.now))

    def _is_alive(self) -> ColumnElement[bool]:
        return or_(FILES.c.expires.is_(None), FILES.c.expires > self._database.now)

    async def _own(self, connection: AsyncConnection, tenant: str, id: str) -> AnyRow:
        row = await own(connection, FILES, _KIND, tenant, id)
        alive = select(FILES.c.id).where(FILES.c.id == id, self._is_alive())
        if (await connection.execute(alive)).one_or_none() is None:
            raise unknown_id(_KIND)
        return row


class FileWriter:
    """Writes one file within an open transaction, which makes it whole or leaves nothing."""

    def __init__(self, connection: AsyncConnection, now: ColumnElement[float], tenant: str) -> None:
        self.id = f"file-{uuid.uuid4().hex}"
        self._connection = connection
        self._now = now
        self._tenant = tenant
        self._waiting = bytearray()
        self._chunks = 0
        self._bytes = 0

    async def begin(self, name: str, purpose: FilePurpose, seconds: float | None) -> None:
        """Create the empty file."""
        await self._connection.execute(
            insert(FILES).values(
                id=self.id,
                tenant=self._tenant,
                # PostgreSQL's text has no null character.
                name=name.replace("\0", ""),
                purpose=purpose,
                bytes=0,
                created=self._now,
                expires=None if seconds is None else self._now + seconds,
            )
        )

    async def write(self, content: bytes) -> None:
        """Append content."""
        self._waiting += content
        while len(self._waiting) >= CHUNK:
            await self._put(bytes(self._waiting[:CHUNK]))
            del self._waiting[:CHUNK]

    async def end(self) -> None:
        """Write what is left, and the size."""
        if self._waiting:
            await self._put(bytes(self._waiting))
        sized = update(FILES).where(FILES.c.id == self.id).values(bytes=self._bytes)
        await self._connection.execute(sized)

    async def _put(self, content: bytes) -> None:
        row = {"file": self.id, "number": self._chunks, "content": content}
        await self._connection.execute(insert(CHUNKS).values(row))
        self._chunks += 1
        self._bytes += len(content)


def _described(row: AnyRow) -> FileObject:
    return FileObject(
        id=row.id,
        bytes=row.bytes,
        created_at=int(row.created),
        expires_at=None if row.expires is None else int(row.expires),
        filename=row.name,
        purpose=row.purpose,
    )
