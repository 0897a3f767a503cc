"""A batch that a stalled controller goes on with after another has taken it, and one at which a
controller fails."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update

from stepback_core.schemas.jobs import Batch, BatchStatus
from stepback_server.jobs import lifecycle
from stepback_server.jobs.files import Files
from stepback_server.jobs.job import State
from stepback_server.jobs.lease import Lease
from stepback_server.jobs.lifecycle import Lifecycle
from stepback_server.jobs.opened import OpenedJobs
from stepback_server.storage.tables import BATCHES, CONTROLLERS, FILES, JOBS
from tests.postgres import Postgres
from tests.server.jobs.test_databases import (
    NAME,
    Counting,
    begin,
    controllers,
    ids_of,
    is_completed,
    until,
)
from tests.server.jobs.test_databases import url as url

pytestmark = pytest.mark.timeout(400)
VALIDATING = (BatchStatus.VALIDATING,)
FINALIZING = (BatchStatus.FINALIZING,)


def stalled(jobs: OpenedJobs) -> Lifecycle:
    """The batches of a controller that is taken for dead."""
    return Lifecycle(
        jobs.database, Files(jobs.database), most_lines=99, most_bytes=9999, keep_seconds=9999
    )


async def claimed(old: Lifecycle, jobs: OpenedJobs, batch: Batch, statuses: Any) -> Any:
    """A batch as the stalled controller has claimed it, after it was freed."""
    row = await old._claim("old", statuses)
    assert row is not None and row.id == batch.id
    await free(jobs)
    return row


async def free(jobs: OpenedJobs) -> None:
    async with jobs.database.begin() as connection:
        await connection.execute(update(BATCHES).values(owner=None))


async def stop(jobs: OpenedJobs) -> None:
    """End a controller's own work, so that a test does it step by step."""
    for task in jobs._tasks:
        task.cancel()
    await asyncio.gather(*jobs._tasks, return_exceptions=True)


async def states_of(jobs: OpenedJobs) -> dict[str, int]:
    counts = select(JOBS.c.state, func.count()).group_by(JOBS.c.state)
    async with jobs.database.begin() as connection:
        return {state: number for state, number in await connection.execute(counts)}


async def one_step(jobs: OpenedJobs) -> None:
    await jobs.runner._lifecycle.advance("new")


def test_who_wakes_before_it_reads_a_batch_leaves_the_lines_of_another(url: str) -> None:
    async def scenario() -> None:
        async with controllers(url, Counting()) as [jobs]:
            await stop(jobs)
            batch, old = await begin(jobs, 5), stalled(jobs)
            row = await claimed(old, jobs, batch, VALIDATING)
            await one_step(jobs)
            await old._validate(row)
            assert await states_of(jobs) == {State.QUEUED: 5}
        async with controllers(url, Counting()) as [jobs]:
            assert await ids_of(jobs, await until(jobs, batch, is_completed)) == list(range(5))

    asyncio.run(scenario())


def test_who_wakes_while_it_reads_a_batch_adds_no_line(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Files.content

    async def scenario() -> None:
        async with controllers(url, Counting()) as [jobs]:
            await stop(jobs)
            batch, old = await begin(jobs, 9), stalled(jobs)
            row = await old._claim("old", VALIDATING)
            assert row is not None

            async def slow(self: Files, tenant: str, id: str) -> AsyncGenerator[bytes]:
                content = b"".join([chunk async for chunk in whole(self, tenant, id)])
                half = len(content) // 2
                yield content[:half]
                if self is old._files:
                    await free(jobs)
                    assert await jobs.runner._lifecycle._claim("new", VALIDATING) is not None
                yield content[half:]

            monkeypatch.setattr(Files, "content", slow)
            await old._validate(row)
            held = await states_of(jobs)
            assert held.keys() == {State.HELD} and held[State.HELD] < 9
            assert (await jobs.batches.find(NAME, batch.id)).status is BatchStatus.VALIDATING
            await one_step(jobs)
            assert await states_of(jobs) == {State.QUEUED: 9}
        async with controllers(url, Counting()) as [jobs]:
            assert await ids_of(jobs, await until(jobs, batch, is_completed)) == list(range(9))

    asyncio.run(scenario())


def test_who_wakes_late_writes_no_files_of_a_batch_that_another_ends(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Lifecycle._write

    async def scenario() -> None:
        async with controllers(url, Counting()) as [jobs]:
            await stop(jobs)
            batch, old = await begin(jobs, 3), stalled(jobs)
            await one_step(jobs)
            async with jobs.database.begin() as connection:
                done = update(JOBS).values(state=State.DONE, status=200, answer="{}")
                await connection.execute(done)
            await old._close()
            row = await claimed(old, jobs, batch, FINALIZING)

            async def write(self: Lifecycle, *given: Any) -> Any:
                written = await whole(self, *given)
                if self is old:  # The other ends it before this one has.
                    await one_step(jobs)
                return written

            monkeypatch.setattr(Lifecycle, "_write", write)
            await old._finalize(row)
            await one_step(jobs)
            found = await jobs.batches.find(NAME, batch.id)
            files = select(FILES.c.id).where(FILES.c.purpose == "batch_output")
            async with jobs.database.begin() as connection:
                kept = (await connection.execute(files)).scalars().all()
            assert found.request_counts.completed == 3 and kept == [found.output_file_id]

    asyncio.run(scenario())


def test_a_batch_with_lines_that_are_still_held_is_not_closed(url: str) -> None:
    async def scenario() -> None:
        async with controllers(url, Counting()) as [jobs]:
            await stop(jobs)
            batch = await begin(jobs, 2)
            await one_step(jobs)
            async with jobs.database.begin() as connection:
                await connection.execute(update(JOBS).values(state=State.HELD))
            await one_step(jobs)
            found = await jobs.batches.find(NAME, batch.id)
            assert found.status is BatchStatus.IN_PROGRESS

    asyncio.run(scenario())


def test_a_batch_whose_file_is_deleted_while_it_is_read_fails(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Files.content

    async def deleted(self: Files, tenant: str, id: str) -> AsyncGenerator[bytes]:
        async for chunk in whole(self, tenant, id):
            yield chunk
            await self.delete(tenant, id)

    monkeypatch.setattr(Files, "content", deleted)

    async def scenario() -> None:
        async with controllers(url, Counting()) as [jobs]:
            batch = await until(jobs, await begin(jobs, 3), lambda each: each.failed_at is not None)
            assert batch.errors and batch.errors.data[0].code == "file_not_found"

    asyncio.run(scenario())


def test_an_unexpected_error_is_told_and_the_batch_tried_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, is_mended = Files.content, asyncio.Event()

    async def broken(self: Files, tenant: str, id: str) -> AsyncGenerator[bytes]:
        if not is_mended.is_set():
            raise RuntimeError("a defect")
        async for chunk in whole(self, tenant, id):
            yield chunk

    monkeypatch.setattr(Files, "content", broken)
    monkeypatch.setattr(lifecycle, "_SECONDS_BETWEEN_TRIES", 0.1)

    async def scenario() -> None:
        async with controllers(url, Counting()) as [jobs]:
            begun = await begin(jobs, 3)
            told = await until(jobs, begun, lambda batch: batch.errors is not None)
            assert told.status is BatchStatus.VALIDATING
            assert told.errors and told.errors.data[0].code == "internal"
            is_mended.set()
            assert (await until(jobs, begun, is_completed)).errors is None

    asyncio.run(scenario())


def test_a_controller_that_froze_within_a_transaction_holds_up_no_heartbeat(
    cluster: Postgres,
) -> None:
    async def scenario() -> None:
        url = cluster.create("frozen_within")
        async with controllers(url, Counting()) as [jobs]:
            await stop(jobs)
            batch = await begin(jobs, 2)
            await one_step(jobs)
            lease = Lease(jobs.database, 1000.0)
            await lease.begin()
            # As one that has beaten for long, and so trusts what it sees of others.
            lease._begun -= 1e9
            async with jobs.database.begin() as connection:
                dead = {"id": "dead", "heartbeat": 0.0}
                await connection.execute(insert(CONTROLLERS).values(dead))
                await connection.execute(update(BATCHES).values(owner="dead"))
                await connection.execute(update(JOBS).values(owner="dead", state=State.RUNNING))
            of_batch = select(BATCHES.c.id).where(BATCHES.c.id == batch.id).with_for_update()
            one_job = select(JOBS.c.number).order_by(JOBS.c.number).limit(1).with_for_update()
            async with jobs.database.begin() as frozen:
                await frozen.execute(of_batch)
                await frozen.execute(one_job)
                assert await lease.beat()
                assert await states_of(jobs) == {State.RUNNING: 1, State.QUEUED: 1}
            assert await lease.beat()
            assert await states_of(jobs) == {State.QUEUED: 2}

    asyncio.run(scenario())


def test_a_controller_that_froze_within_its_heartbeat_holds_up_no_other(cluster: Postgres) -> None:
    async def scenario() -> None:
        url = cluster.create("frozen_in_heartbeat")
        async with controllers(url, Counting()) as [jobs]:
            await stop(jobs)
            await begin(jobs, 2)
            await one_step(jobs)
            lease = Lease(jobs.database, 1000.0)
            await lease.begin()
            lease._begun -= 1e9
            first = JOBS.c.number == select(func.min(JOBS.c.number)).scalar_subquery()
            async with jobs.database.begin() as connection:
                dead = [{"id": id, "heartbeat": 0.0} for id in ("frozen", "dead")]
                await connection.execute(insert(CONTROLLERS).values(dead))
                await connection.execute(update(JOBS).values(owner="dead", state=State.RUNNING))
                await connection.execute(update(JOBS).where(first).values(owner="frozen"))
            beats = update(CONTROLLERS).where(CONTROLLERS.c.id == "frozen").values(heartbeat=0.0)
            async with jobs.database.begin() as frozen:
                await frozen.execute(beats)
                assert await lease.beat()
                assert await states_of(jobs) == {State.RUNNING: 1, State.QUEUED: 1}
            assert await lease.beat()
            assert await states_of(jobs) == {State.QUEUED: 2}

    asyncio.run(scenario())
