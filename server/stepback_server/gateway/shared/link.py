"""One connection to PostgreSQL that is given up the moment it is slow."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from stepback_server.storage.errors import StorageUnavailable

if TYPE_CHECKING:
    from asyncpg import Connection

_log = logging.getLogger(__name__)
T = TypeVar("T")
_SECONDS_BETWEEN_TRIES = 1.0
_SECONDS_TO_CONNECT = 5.0
_IDLE_MILLISECONDS = "2000"
"""A controller that stops in the middle of a transaction holds its rows for no longer."""
Work = Callable[["Connection[Any]"], Awaitable[T]]


class Link:
    """Works over one connection, one piece of work after the other. `run` it in a task.

    Whoever waits is answered within `patience` seconds: by the database, or by StorageUnavailable.
    After that every call fails at once, until another connection has done its first work in time.
    """

    def __init__(
        self,
        url: str,
        patience: float,
        first_work: Work[object],
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        """`first_work` tries a new connection; `lost` is called when one is given up."""
        self._url = url
        self._patience = patience
        self._first_work = first_work
        self._on_loss = lost
        self._connection: Connection[Any] | None = None
        # asyncpg refuses a second query on a connection that is at work.
        self._one_at_a_time = asyncio.Lock()
        self._lost = asyncio.Event()
        self._calls = set[asyncio.Task[Any]]()
        self.reason = "the database was not reached yet"
        """Reason why there is no connection, while there is none."""

    @property
    def is_up(self) -> bool:
        return self._connection is not None

    async def run(self) -> None:
        """Keep a connection until cancelled."""
        try:
            while True:
                self._lost.clear()
                if await self._connect():
                    await self._lost.wait()
                await asyncio.sleep(_SECONDS_BETWEEN_TRIES)
        finally:
            self._drop("the controller stops")

    async def _connect(self) -> bool:
        try:
            connection = await asyncio.wait_for(_connected(self._url), _SECONDS_TO_CONNECT)
        except Exception as error:  # Whatever it fails of, it is tried again.
            self._say(f"{type(error).__name__}: {error}")
            return False
        trying = asyncio.ensure_future(self._first_work(connection))
        done, _ = await asyncio.wait({trying}, timeout=self._patience)
        # A database that connects and then hangs would stop every search in turn.
        if not done or trying.exception() is not None:
            connection.terminate()
            await asyncio.gather(trying, return_exceptions=True)
            self._say(str(trying.exception()) if done else "it is slow")
            return False
        self._connection = connection
        connection.add_termination_listener(lambda _: self._drop("the connection was closed"))
        _log.info("limits and answers are shared with other controllers")
        return True

    async def call(self, work: Work[T]) -> T:
        """Do a piece of work. Raises StorageUnavailable."""
        task = asyncio.create_task(self._call(work))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        # A caller that leaves must not leave a half-read connection.
        return await asyncio.shield(task)

    async def _call(self, work: Work[T]) -> T:
        if self._connection is None:
            raise StorageUnavailable(self.reason)
        # Counted from the call, the wait for its turn included.
        deadline = time.monotonic() + self._patience
        async with self._one_at_a_time:
            # It may have been lost while others had their turn.
            connection = cast("Connection[Any] | None", self._connection)
            if connection is None:
                raise StorageUnavailable(self.reason)
            working = asyncio.ensure_future(work(connection))
            done, _ = await asyncio.wait({working}, timeout=deadline - time.monotonic())
            if not done:
                self._drop(f"it did not answer within {self._patience:g} s")
                await asyncio.gather(working, return_exceptions=True)
                raise StorageUnavailable(self.reason)
            return self._result(working)

    def _result(self, working: "asyncio.Future[T]") -> T:
        from asyncpg import InterfaceError, PostgresError

        try:
            return working.result()
        except (PostgresError, InterfaceError, OSError) as error:
            self._drop(f"{type(error).__name__}: {error}")
            raise StorageUnavailable(self.reason) from error

    def _drop(self, reason: str) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._say(reason)
            connection.terminate()
            self._on_loss()
        self._lost.set()

    def _say(self, reason: str) -> None:
        # One line for an outage, not one for each try.
        if reason != self.reason:
            _log.warning("each controller counts for itself: %s", reason)
        self.reason = reason


async def _connected(url: str) -> "Connection[Any]":
    # Imported here: a server without PostgreSQL never loads it. Not by SQLAlchemy, which jobs load
    # in a thread at this moment.
    import asyncpg

    settings = {"idle_in_transaction_session_timeout": _IDLE_MILLISECONDS}
    return await asyncpg.connect(_address_of(url), server_settings=settings)


def _address_of(url: str) -> str:
    """The URL as asyncpg reads it: SQLAlchemy names the driver, and `ssl` otherwise."""
    parts = urlsplit(url)
    query = [("sslmode" if key == "ssl" else key, value) for key, value in parse_qsl(parts.query)]
    return urlunsplit(parts._replace(scheme="postgresql", query=urlencode(query)))
