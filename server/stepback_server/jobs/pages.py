"""Pages of a list: `limit`, `after` and `order`."""

from collections.abc import Sequence
from typing import Protocol

from sqlalchemy import ColumnElement, Table, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from stepback_core.schemas.jobs import Order
from stepback_server.errors import unknown_id
from stepback_server.storage.tables import AnyRow


async def own(
    connection: AsyncConnection,
    table: Table,
    kind: str,
    tenant: str,
    id: str,
    *where: ColumnElement[bool],
) -> AnyRow:
    """Read one row of a tenant. Raises ApiError."""
    # PostgreSQL's text has no such character, and would refuse the question.
    if "\0" in id:
        raise unknown_id(kind)
    wanted = select(table).where(table.c.id == id, table.c.tenant == tenant, *where)
    row = (await connection.execute(wanted)).one_or_none()
    if row is None:
        raise unknown_id(kind)
    return row


async def page(
    connection: AsyncConnection,
    table: Table,
    kind: str,
    tenant: str,
    *,
    limit: int,
    after: str | None,
    order: Order,
    where: Sequence[ColumnElement[bool]] = (),
) -> tuple[Sequence[AnyRow], bool]:
    """Read one page of a tenant's rows, and True where more follow. Raises ApiError."""
    wanted = select(table).where(table.c.tenant == tenant, *where)
    keys, is_newest_first = (table.c.created, table.c.id), order is Order.NEWEST
    if after is not None:
        before = await own(connection, table, kind, tenant, after, *where)
        place, row = (before.created, before.id), tuple_(*keys)
        wanted = wanted.where(row < place if is_newest_first else row > place)
    by = [key.desc() if is_newest_first else key for key in keys]
    rows = (await connection.execute(wanted.order_by(*by).limit(limit + 1))).all()
    return rows[:limit], len(rows) > limit


class _Named(Protocol):
    @property
    def id(self) -> str: ...


def first(entries: Sequence[_Named]) -> str | None:
    """The id of a page's first entry."""
    return entries[0].id if entries else None


def last(entries: Sequence[_Named]) -> str | None:
    """The id of a page's last entry."""
    return entries[-1].id if entries else None
