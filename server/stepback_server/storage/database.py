"""One database, asynchronously: transactions, its clock, its migrations."""

import logging
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import ColumnElement, Connection, Double, Table, cast, event, func, literal, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DatabaseError,
    DBAPIError,
    InterfaceError,
    OperationalError,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from stepback_core.errors import InvalidInput
from stepback_server.storage.errors import StorageUnavailable

_log = logging.getLogger(__name__)

_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
# Advisory lock of PostgreSQL that one controller holds while it migrates.
_MIGRATION_LOCK = 7_266_125
_SECONDS_TO_CONNECT = 5
_SECONDS_TO_ANSWER = 20
# SQLSTATEs: the connection breaks, transactions wait for each other, the disk or the connections
# are used up, the server stops, starts or only reads; no such role, password, database or right.
_PASSING = ("08", "40", "53", "57P", "25006", "28", "3D", "42501")


def address_of(url: str) -> URL:
    """The address with its asynchronous driver. Raises InvalidInput."""
    if not url:
        raise InvalidInput("STEPBACK_DATABASE_URL is empty: it names no database")
    try:
        # The short form is what many hosts hand out; SQLAlchemy knows only the long one.
        address = make_url(url.replace("postgres://", "postgresql://", 1))
    except ArgumentError:
        raise InvalidInput(
            "STEPBACK_DATABASE_URL: write sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
        ) from None
    driver = _DRIVERS.get(address.get_backend_name())
    if driver is None:
        raise InvalidInput(
            f"STEPBACK_DATABASE_URL: {address.get_backend_name()} is not supported; "
            "write sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
        )
    # asyncpg has another name for it than libpq.
    query = {"ssl" if name == "sslmode" else name: value for name, value in address.query.items()}
    return address.set(drivername=driver, query=query)


class Database:
    """A pool of connections. `upgrade` it once before use, `close` it in the end."""

    def __init__(self, url: str) -> None:
        address = address_of(url)
        self.is_shared = address.get_backend_name() == "postgresql"
        """Several machines may use it at once."""
        # For logs.
        self.name = address.render_as_string(hide_password=True)
        self._engine = _shared(address) if self.is_shared else _in_a_file(address)

    @property
    def now(self) -> ColumnElement[float]:
        """Seconds since 1970: PostgreSQL's own clock, so that all controllers share it."""
        if self.is_shared:
            return cast(func.extract("epoch", func.clock_timestamp()), Double)
        return literal(time.time())

    def insert_new(self, table: Table) -> Any:
        """An INSERT that does nothing where the row is there already."""
        insert = postgresql.insert if self.is_shared else sqlite.insert
        return insert(table).on_conflict_do_nothing()

    @asynccontextmanager
    async def begin(self) -> AsyncGenerator[AsyncConnection]:
        """Open a transaction that is committed at the end. Raises StorageUnavailable."""
        try:
            async with self._engine.begin() as connection:
                yield connection
        except (OperationalError, InterfaceError, OSError, TimeoutError) as error:
            raise StorageUnavailable(_cause(error)) from error
        except DBAPIError as error:
            if not error.connection_invalidated and not _may_pass(error):
                raise
            raise StorageUnavailable(_cause(error)) from error

    async def upgrade(self) -> None:
        """Bring the schema to this version. Raises InvalidInput and StorageUnavailable."""
        try:
            async with self.begin() as connection:
                if self.is_shared:
                    # Controllers that start together would run the same migration; SQLite's
                    # transaction locks the file itself.
                    lock = text("SELECT pg_advisory_xact_lock(:lock)")
                    await connection.execute(lock, {"lock": _MIGRATION_LOCK})
                await connection.run_sync(_migrate)
        except CommandError as error:
            raise InvalidInput(
                f"{self.name} is of another version of Stepback ({error}): use the newer one"
            ) from error

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()


async def upgrade(url: str) -> str:
    """Migrate a database and return its name without password. Raises what Database does."""
    database = Database(url)
    try:
        await database.upgrade()
    finally:
        await database.close()
    return database.name


def migrations(connection: Connection) -> Config:
    """Alembic's configuration over an open connection."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _migrate(connection: Connection) -> None:
    command.upgrade(migrations(connection), "head")


def _shared(address: URL) -> AsyncEngine:
    return create_async_engine(
        address,
        pool_size=8,
        max_overflow=8,
        pool_timeout=_SECONDS_TO_CONNECT,
        # A connection that the server closed meanwhile is replaced before it is used.
        pool_pre_ping=True,
        connect_args={"timeout": _SECONDS_TO_CONNECT, "command_timeout": _SECONDS_TO_ANSWER},
    )


def _in_a_file(address: URL) -> AsyncEngine:
    if address.database and address.database != ":memory:":
        try:
            Path(address.database).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInput(
                f"STEPBACK_DATABASE_URL: no file can be made there: {error}"
            ) from error
    engine = create_async_engine(address, connect_args={"timeout": _SECONDS_TO_ANSWER})

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _: object) -> None:  # pyright: ignore[reportUnusedFunction]
        # The driver would begin transactions late, as readers, and then fail to become writers.
        connection.isolation_level = None
        cursor = connection.cursor()
        try:
            for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
                cursor.execute(f"PRAGMA {pragma}")
        except BaseException:
            # SQLAlchemy forgets it, and its thread would outlive the loop.
            connection.close()
            raise
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:  # pyright: ignore[reportUnusedFunction]
        # A writer from the start: it waits for its turn here, where the driver's timeout holds.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _may_pass(error: DBAPIError) -> bool:
    """True for errors that say nothing of the statement: another try may succeed, or one that
    follows the operator's."""
    # SQLite's bare DatabaseError is a file that is damaged, or no database; PostgreSQL has none.
    if type(error) is DatabaseError:
        return True
    return str(getattr(error.orig, "sqlstate", "") or "").startswith(_PASSING)


def _cause(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__}: {cause}".splitlines()[0]
