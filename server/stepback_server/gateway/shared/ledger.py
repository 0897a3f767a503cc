"""Keeps the limits of keys in step with other controllers, over one row a key."""

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from stepback_server.gateway.rate_limit import RateLimiter
from stepback_server.gateway.shared.link import Link
from stepback_server.gateway.shared.settlement import (
    Claim,
    KeyState,
    Report,
    Settled,
    Want,
    settle,
)
from stepback_server.gateway.tenant import Tenant
from stepback_server.storage.errors import StorageUnavailable

if TYPE_CHECKING:
    from asyncpg import Connection

_CHANNEL = "stepback_limits"
_SECONDS_TO_SPEND = 0.25
"""Delay until others see the tokens that were generated here."""
_NOW = "extract(epoch FROM clock_timestamp())::float8"
_BEGIN_ROWS = f"""
    INSERT INTO key_usage (tenant, filled, claims)
    SELECT unnest($1::text[]), {_NOW}, '{{}}' ON CONFLICT DO NOTHING"""
_READ = f"""
    SELECT tenant, tokens, filled, claims, {_NOW} AS now
    FROM key_usage WHERE tenant = ANY($1::text[]) ORDER BY tenant FOR UPDATE"""
_WRITE = """
    UPDATE key_usage SET tokens = new.tokens, filled = new.filled, claims = new.claims::json
    FROM unnest($1::text[], $2::float8[], $3::float8[], $4::text[])
        AS new (tenant, tokens, filled, claims)
    WHERE key_usage.tenant = new.tenant"""


class Searches(Protocol):
    """The searches of this process: `Admission`."""

    def report(self, name: str, *, is_shared: bool) -> tuple[int, Sequence[tuple[int, float]]]:
        """The places that a key keeps here, and what waits for more."""
        ...

    def has(self, name: str) -> bool: ...

    def grant(self, name: str, places: int, *, has_rivals: bool) -> None: ...

    def count_alone(self) -> None: ...


class Ledger:
    """Settles with the other controllers whenever something changes here. `run` it in a task."""

    def __init__(
        self,
        url: str,
        patience: float,
        meter: RateLimiter,
        lease_seconds: float,
        took: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """`patience`: seconds to wait for the database. `took` takes those of each round."""
        self._link = Link(url, patience, self._first_work, self._count_alone)
        self._meter = meter
        self._lease = lease_seconds
        self._took = took
        self._searches: Searches | None = None
        self._owner = uuid.uuid4().hex
        self._tenants: dict[str, Tenant] = {}
        """Keys with something here that others count."""
        self._waiting: list[asyncio.Future[None]] = []
        # One bell for all: however many searches change something at a moment, one round tells of
        # them.
        self._bell = asyncio.Event()
        self.is_shared = False
        """True if the last round succeeded; else this process counts for itself."""

    @property
    def reason(self) -> str:
        """Tell why this process counts for itself, while it does."""
        return self._link.reason

    def attach(self, searches: Searches) -> None:
        """Name the searches to report and to give places to."""
        self._searches = searches

    async def fresh(self, tenant: Tenant) -> None:
        """Return once what is known of a key is of after this call, or must be done without."""
        self._tenants[tenant.name] = tenant
        if self._link.is_up:
            told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(told)
            self._bell.set()
            await told

    def changed(self) -> None:
        """Note that searches have ended, no longer wait, or may now begin."""
        if self._tenants:
            self._bell.set()

    async def _first_work(self, connection: "Connection[Any]") -> None:
        """Try a new connection: listen, and read the table."""
        await connection.add_listener(_CHANNEL, self._told)
        await connection.fetch("SELECT tenant FROM key_usage LIMIT 1")
        self._bell.set()

    def _told(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        # PostgreSQL notifies the sender as well.
        if payload != self._owner:
            self._bell.set()

    async def run(self) -> None:
        """Settle until cancelled."""
        linked = asyncio.create_task(self._link.run())
        try:
            while True:
                await self._until_due()
                await self._settle()
        finally:
            linked.cancel()
            await asyncio.gather(linked, return_exceptions=True)
            self._answer_waiting()

    async def _until_due(self) -> None:
        seconds = self._lease / 4
        if any(self._meter.unreported(name) for name in self._tenants):
            # Tokens are reported soon, since others may be spending the same bucket.
            seconds = _SECONDS_TO_SPEND
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._bell.wait()
        # After the wait and before the round: what rings during the round calls for another one.
        self._bell.clear()

    async def _settle(self) -> None:
        # Only requests from before this round: its reading is fresh for no others.
        waiting, self._waiting = self._waiting, []
        if self._link.is_up:
            reports, began = self._reports(), time.monotonic()
            try:
                await self._link.call(lambda each: self._round(each, reports))
                self._took(time.monotonic() - began)
                self.is_shared = self._link.is_up
            except StorageUnavailable:
                for report in reports:
                    # Whether the transaction was committed is unknown. Reported twice is less harm
                    # than never.
                    self._meter.put_back(report.tenant, report.spent)
        for told in waiting:
            if not told.done():
                told.set_result(None)

    def _answer_waiting(self) -> None:
        self._count_alone()
        for told in self._waiting:
            if not told.done():
                told.set_result(None)

    def _count_alone(self) -> None:
        self.is_shared = False
        if self._searches is not None:
            self._searches.count_alone()
        self._bell.set()

    def _reports(self) -> list[Report]:
        assert self._searches is not None
        return [
            Report(
                self._owner,
                name,
                tenant.max_searches,
                tenant.tokens_per_minute,
                *self._searches.report(name, is_shared=self.is_shared),
                self._meter.take_unreported(name),
            )
            # In one order at every controller, or two that lock the same rows could wait for each
            # other.
            for name, tenant in sorted(self._tenants.items())
        ]

    async def _round(self, connection: "Connection[Any]", reports: Sequence[Report]) -> None:
        if not reports:
            return
        async with connection.transaction():
            settled = await _settled(connection, reports, self._lease)
            if any(each.others_should_look for each in settled):
                await connection.execute("SELECT pg_notify($1, $2)", _CHANNEL, self._owner)
        for report, each in zip(reports, settled, strict=True):
            self._take(report, each)

    def _take(self, report: Report, settled: Settled) -> None:
        assert self._searches is not None
        name, tenant = report.tenant, self._tenants[report.tenant]
        if report.max_searches is not None:
            self._searches.grant(name, settled.held, has_rivals=settled.has_rivals)
        if settled.tokens is not None:
            # Tokens that were generated during the round are not in what the database says.
            self._meter.correct(tenant, settled.tokens - self._meter.unreported(name))
        has_claim = self._owner in settled.state.claims
        if not (has_claim or self._searches.has(name) or self._meter.unreported(name)):
            del self._tenants[name]


async def _settled(
    connection: "Connection[Any]", reports: Sequence[Report], lease: float
) -> list[Settled]:
    """Settle reports, which are sorted by key, with what the rows say."""
    names = [report.tenant for report in reports]
    rows = await connection.fetch(_READ, names)
    # Rows are made once a key; afterwards a round is one read and one write.
    if len(rows) < len(names):
        await connection.execute(_BEGIN_ROWS, names)
        rows = await connection.fetch(_READ, names)
    now = max(row["now"] for row in rows)
    by_name = {row["tenant"]: _state(row) for row in rows}
    settled = [settle(by_name[report.tenant], report, now, lease) for report in reports]
    states = [each.state for each in settled]
    await connection.execute(
        _WRITE,
        names,
        [state.tokens for state in states],
        [state.filled for state in states],
        [_encoded(state.claims) for state in states],
    )
    return settled


def _state(row: Mapping[str, Any]) -> KeyState:
    claims = {
        owner: Claim(held, tuple(Want(*want) for want in wants), renewed)
        for owner, (held, wants, renewed) in json.loads(row["claims"]).items()
    }
    return KeyState(row["tokens"], row["filled"], claims)


def _encoded(claims: Mapping[str, Claim]) -> str:
    return json.dumps(
        {owner: (claim.held, claim.wants, claim.renewed) for owner, claim in claims.items()}
    )
