"""Answers for repeated Idempotency-Keys, which every controller finds."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stepback_server.errors import idempotency_mismatch
from stepback_server.gateway.shared.link import Link, Work
from stepback_server.storage.errors import StorageUnavailable

if TYPE_CHECKING:
    from asyncpg import Connection

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.25
# Who waits at another controller looks more often than this.
_SECONDS_WANTED = 2.0
_SECONDS_BETWEEN_CLEANUPS = 60.0
# The database's clock: those of controllers may differ.
_NOW = "extract(epoch FROM clock_timestamp())::float8"
# A claim is free where its controller is silent, and an answer where it has been kept long enough.
_CLAIM = f"""
    INSERT INTO key_answers (tenant, key, fingerprint, claim, renewed)
    VALUES ($1, $2, $3, $4, {_NOW})
    ON CONFLICT (tenant, key) DO UPDATE
    SET fingerprint = $3, claim = $4, renewed = {_NOW}, answer = NULL, wanted = NULL
    WHERE key_answers.renewed
        < {_NOW} - CASE WHEN key_answers.answer IS NULL THEN $5::float8 ELSE $6::float8 END
    RETURNING 1"""
_LOOK = f"""
    UPDATE key_answers SET wanted = {_NOW} WHERE tenant = $1 AND key = $2
    RETURNING fingerprint, answer"""
_KNOWS = f"""
    SELECT 1 FROM key_answers WHERE tenant = $1 AND key = $2 AND renewed
        >= {_NOW} - CASE WHEN answer IS NULL THEN $3::float8 ELSE $4::float8 END"""
_WANTED = f"""
    SELECT 1 FROM key_answers WHERE tenant = $1 AND key = $2 AND wanted > {_NOW} - $3::float8"""
_KEEP = f"UPDATE key_answers SET answer = $2, renewed = {_NOW} WHERE claim = $1"
_RENEW = f"""
    UPDATE key_answers SET renewed = {_NOW} WHERE claim = ANY($1::text[]) AND answer IS NULL"""
_GIVE_UP = "DELETE FROM key_answers WHERE claim = $1 AND answer IS NULL"
_EVICT = """
    DELETE FROM key_answers WHERE tenant = $1 AND key IN (
        SELECT key FROM (
            SELECT key, row_number() OVER newest AS place, sum(length(answer)) OVER newest AS bytes
            FROM key_answers WHERE tenant = $1 AND answer IS NOT NULL
            WINDOW newest AS (ORDER BY renewed DESC, key)
        ) AS kept WHERE place > $2 OR bytes > $3)"""
_CLEAN = f"DELETE FROM key_answers WHERE renewed < {_NOW} - $1::float8"


@dataclass(frozen=True, slots=True)
class _Found:
    fingerprint: bytes
    answer: bytes | None
    """The stored answer; None while the search runs."""


class SharedAnswers:
    """Claims keys before their searches, and keeps the answers. `run` it in a task."""

    def __init__(
        self,
        url: str,
        patience: float,
        *,
        lease_seconds: float,
        keep_seconds: float,
        max_results: int,
        max_bytes: int,
    ) -> None:
        """`keep_seconds`, `max_results` and `max_bytes` limit what each key may have kept."""
        self._link = Link(url, patience, _try)
        self._lease = lease_seconds
        self._keep_seconds = keep_seconds
        self._limits = max_results, max_bytes
        self._claims = set[str]()
        """Claims of searches that run here."""
        self._tasks = set[asyncio.Task[None]]()

    @property
    def is_shared(self) -> bool:
        return self._link.is_up

    async def run(self) -> None:
        """Renew the claims of what runs here, until cancelled."""
        linked = asyncio.create_task(self._link.run())
        clean_up = 0.0
        try:
            while True:
                await asyncio.sleep(self._lease / 4)
                clean_up -= self._lease / 4
                with suppress(StorageUnavailable):
                    await self._do(_RENEW, list(self._claims))
                    if clean_up <= 0:
                        await self._do(_CLEAN, max(self._keep_seconds, self._lease))
                        clean_up = _SECONDS_BETWEEN_CLEANUPS
        finally:
            linked.cancel()
            await asyncio.gather(linked, *self._tasks, return_exceptions=True)

    async def once(
        self,
        tenant: str,
        key: str,
        fingerprint: bytes,
        work: Callable[[], Coroutine[Any, Any, bytes]],
    ) -> tuple[bytes, bool]:
        """The answer, and True where another controller gave it: it is waited for there. Raises
        what the work raises, and ApiError where the key was used for another request."""
        claim = uuid.uuid4().hex
        while True:
            try:
                found = await self._link.call(self._claim(tenant, key, fingerprint, claim))
            except StorageUnavailable:
                return await work(), False
            if found is None:
                return await self._work(tenant, claim, work), False
            if found.fingerprint != fingerprint:
                raise idempotency_mismatch()
            if found.answer is not None:
                return found.answer, True
            await asyncio.sleep(_POLL_SECONDS)

    async def knows(self, tenant: str, key: str) -> bool:
        """Tell whether a search with this key runs at another controller, or has ended."""
        return await self._is_there(_KNOWS, tenant, key, self._lease, self._keep_seconds)

    async def is_wanted(self, tenant: str, key: str) -> bool:
        """True if a caller waits at another controller for a search that runs here."""
        return await self._is_there(_WANTED, tenant, key, _SECONDS_WANTED)

    def _claim(self, tenant: str, key: str, fingerprint: bytes, claim: str) -> Work[_Found | None]:
        async def work(connection: "Connection[Any]") -> _Found | None:
            while True:
                given = (tenant, key, fingerprint, claim, self._lease, self._keep_seconds)
                if await connection.fetchval(_CLAIM, *given):
                    return None
                row = await connection.fetchrow(_LOOK, tenant, key)
                # None: it was given up in between.
                if row is not None:
                    return _Found(row["fingerprint"], row["answer"])

        return work

    async def _work(
        self, tenant: str, claim: str, work: Callable[[], Coroutine[Any, Any, bytes]]
    ) -> bytes:
        # Before the work: what is not in the set is not renewed, and others would begin the same
        # search.
        self._claims.add(claim)
        try:
            answer = await work()
        except BaseException:
            self._later(self._do(_GIVE_UP, claim))
            raise
        finally:
            self._claims.discard(claim)
        self._later(self._keep(tenant, claim, answer))
        return answer

    async def _keep(self, tenant: str, claim: str, answer: bytes) -> None:
        await self._do(_KEEP, claim, answer)
        await self._do(_EVICT, tenant, *self._limits)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it in a task. It may fail: an outage costs no more than a search that is repeated."""

        async def quietly() -> None:
            with suppress(StorageUnavailable):
                await work

        # Held in a set: the loop keeps only weak references to tasks.
        task = asyncio.create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _do(self, statement: str, *given: object) -> None:
        async def work(connection: "Connection[Any]") -> object:
            return await connection.execute(statement, *given)

        await self._link.call(work)

    async def _is_there(self, statement: str, *given: object) -> bool:
        async def work(connection: "Connection[Any]") -> bool:
            return await connection.fetchval(statement, *given) is not None

        try:
            return await self._link.call(work)
        except StorageUnavailable:
            return False


def _try(connection: "Connection[Any]") -> Awaitable[object]:
    return connection.fetch("SELECT key FROM key_answers LIMIT 1")
