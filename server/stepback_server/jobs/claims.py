"""Claiming jobs and writing their answers, each exactly once."""

import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Update,
    and_,
    bindparam,
    case,
    exists,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from stepback_core.schemas.jobs import BatchStatus
from stepback_server.errors import ApiError
from stepback_server.gateway.tenant import Tenant
from stepback_server.jobs.job import OPEN, Answered, Job, JobAnswer, NotNow, State, Tokens
from stepback_server.jobs.turns import Turns
from stepback_server.storage.database import Database
from stepback_server.storage.tables import BATCHES, JOBS

# Seconds; a limit may say that it ends later, and be lifted sooner.
_LONGEST_PAUSE = 30.0
_Queued = Sequence[tuple[str, ColumnElement[bool]]]
"""Keys with jobs to do, and which jobs."""


class Claims:
    """Jobs for one controller: of the model that it serves, of handlers that it has, and of keys
    that it knows. Jobs of other keys wait for controllers that know them."""

    def __init__(
        self,
        database: Database,
        model: Callable[[], str],
        handlers: Collection[str],
        find_tenant: Callable[[str], Tenant | None],
    ) -> None:
        self._database = database
        self._model = model
        self._handlers = tuple(handlers)
        self._find_tenant = find_tenant
        # In memory: whose turn it is, and who has to wait, may differ between controllers, and is
        # forgotten with one.
        self._search_turns, self._line_turns = Turns(), Turns()
        self._paused: dict[str, float] = {}

    async def claim(self, owner: str, *, searches: int, lines: int) -> list[Job]:
        """Claim up to this many background searches and lines of batches. Keys take turns, and each
        key's own come by age."""
        claimed: list[Job] = []
        async with self._database.begin() as connection:
            for slots, look, of, turns in (
                (searches, self._searches, JOBS.c.batch.is_(None), self._search_turns),
                (lines, self._batches, JOBS.c.batch.is_not(None), self._line_turns),
            ):
                if slots > 0:
                    queued = await look(connection)
                    running = await self._running(connection, owner, of)
                    shares = turns.shares(slots, self._limits(queued), running)
                    claimed += await self._take(connection, owner, queued, shares)
        return claimed

    async def _searches(self, connection: AsyncConnection) -> _Queued:
        """The keys with searches to do."""
        is_one = JOBS.c.batch.is_(None)
        # From key to key through the index, however many searches each has.
        first = select(func.min(JOBS.c.tenant).label("name")).where(
            is_one, *claimable(self._model(), self._handlers)
        )
        names = first.cte("names", recursive=True)
        following = first.where(JOBS.c.tenant > names.c.name).scalar_subquery()
        names = names.union_all(select(following).where(names.c.name.is_not(None)))
        found = await connection.execute(select(names.c.name).where(names.c.name.is_not(None)))
        return [(name, and_(is_one, JOBS.c.tenant == name)) for name in found.scalars()]

    async def _batches(self, connection: AsyncConnection) -> _Queued:
        """The keys of batches with lines to do, the oldest batch first."""
        has_lines = exists().where(JOBS.c.batch == BATCHES.c.id, JOBS.c.state == State.QUEUED)
        waiting = (
            select(BATCHES.c.tenant, BATCHES.c.id)
            .where(
                BATCHES.c.status == BatchStatus.IN_PROGRESS,
                BATCHES.c.model == self._model(),
                BATCHES.c.endpoint.in_(self._handlers),
                has_lines,
            )
            .order_by(BATCHES.c.created)
        )
        found = (await connection.execute(waiting)).all()
        return [(str(row.tenant), JOBS.c.batch == row.id) for row in found]

    async def _running(
        self, connection: AsyncConnection, owner: str, of: ColumnElement[bool]
    ) -> dict[str, int]:
        """Jobs of the owner by key."""
        held = select(JOBS.c.tenant, func.count()).where(JOBS.c.owner == owner, of)
        found = (await connection.execute(held.group_by(JOBS.c.tenant))).all()
        return {str(name): int(number) for name, number in found}

    def _limits(self, queued: _Queued) -> dict[str, int]:
        """How many jobs each key may have in flight, of the keys that may begin one now."""
        now = time.monotonic()
        self._paused = {name: until for name, until in self._paused.items() if until > now}
        tenants = {name: self._find_tenant(name) for name, _ in queued if name not in self._paused}
        # More than a key may have in flight would only hold slots that others could use.
        return {
            name: tenant.max_searches or sys.maxsize
            for name, tenant in tenants.items()
            if tenant is not None
        }

    async def _take(
        self, connection: AsyncConnection, owner: str, queued: _Queued, shares: dict[str, int]
    ) -> list[Job]:
        """Claim each key's share."""
        taken: list[Job] = []
        for name, of in queued:
            if shares.get(name):
                claimed = await self._claim(connection, owner, shares[name], of)
                shares[name] -= len(claimed)
                taken += claimed
        return taken

    async def _claim(
        self, connection: AsyncConnection, owner: str, most: int, of: ColumnElement[bool]
    ) -> list[Job]:
        free = (
            select(JOBS.c.number)
            .where(of, *claimable(self._model(), self._handlers))
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

    async def finish(self, owner: str, answered: Sequence[Answered]) -> None:
        """Write answers, None for what was cancelled, of the jobs that are still the owner's.
        NotNow puts a job back, and lets all of its key wait so long."""
        ended = [(job, each) for job, each in answered if not isinstance(each, NotNow)]
        later = {job: each for job, each in answered if isinstance(each, NotNow)}
        if ended:
            await self._end(owner, ended)
        if later:
            await self._put_back(owner, later)

    async def _end(self, owner: str, answered: Sequence[tuple[Job, JobAnswer | None]]) -> None:
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

    async def _put_back(self, owner: str, later: Mapping[Job, NotNow]) -> None:
        for job, reason in later.items():
            until = time.monotonic() + min(reason.seconds, _LONGEST_PAUSE)
            self._paused[job.tenant] = max(until, self._paused.get(job.tenant, 0.0))
        numbers = [job.number for job in later]
        mine = (JOBS.c.number.in_(numbers), JOBS.c.owner == owner, JOBS.c.state == State.RUNNING)
        back = given_back(*mine, now=self._database.now)
        async with self._database.begin() as connection:
            # It was not begun, so this was no attempt.
            await connection.execute(back.values(attempts=JOBS.c.attempts - 1))

    async def end_unknown(self, seconds: float) -> None:
        """End the searches of keys that are unknown here and that have waited so long: by then
        no controller is left that knows them. Lines end with the window of their batch."""
        late = (
            JOBS.c.batch.is_(None),
            JOBS.c.state == State.QUEUED,
            JOBS.c.created < self._database.now - seconds,
        )
        withdrawn = ApiError("unknown_key", "The key that asked for this was withdrawn.")
        answer = _ended(JobAnswer.refusal(withdrawn)) | {"ended": self._database.now}
        async with self._database.begin() as connection:
            found = await connection.execute(select(JOBS.c.tenant).where(*late).distinct())
            unknown = [name for name in found.scalars() if self._find_tenant(name) is None]
            of_unknown = in_order(*late, JOBS.c.tenant.in_(unknown))
            await connection.execute(update(JOBS).where(of_unknown).values(answer))

    async def to_cancel(self, owner: str) -> set[int]:
        """Numbers of the claimed jobs that were cancelled."""
        # Polled by its controller: a caller may have cancelled it at any other one.
        asked = select(JOBS.c.number).where(JOBS.c.owner == owner, JOBS.c.cancelling)
        async with self._database.begin() as connection:
            return set((await connection.execute(asked)).scalars())


def claimable(model: str, handlers: Collection[str]) -> tuple[ColumnElement[bool], ...]:
    """Jobs that wait for a controller of this model with these handlers."""
    return (
        # As a literal: the index of those that wait is for that state alone.
        JOBS.c.state == literal(State.QUEUED.value, literal_execute=True),
        JOBS.c.model == model,
        JOBS.c.endpoint.in_(handlers),
    )


def in_order(*where: ColumnElement[bool], skip_locked: bool = False) -> ColumnElement[bool]:
    """Jobs, locked by number: who changes many at once waits for another, never in a circle."""
    found = select(JOBS.c.number).where(*where).order_by(JOBS.c.number)
    return JOBS.c.number.in_(found.with_for_update(skip_locked=skip_locked))


def given_back(
    *where: ColumnElement[bool], now: ColumnElement[float], skip_locked: bool = False
) -> Update:
    """The change that puts jobs back into the queue, or ends them where they are to be."""
    return (
        update(JOBS)
        .where(in_order(*where, skip_locked=skip_locked))
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
