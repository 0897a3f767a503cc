"""The same over SQLite and over PostgreSQL: controllers that share work, leases, outages."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from alembic import command
from sqlalchemy import Connection, insert, select, text, update

from stepback_core.errors import InvalidInput
from stepback_core.events import StepEvent, UsageEvent
from stepback_core.schemas import ErrorBody, ErrorDetail, ErrorType
from stepback_core.schemas.jobs import Batch, BatchRequest, BatchStatus, JobStatus, SearchJob
from stepback_server.commands.db import db
from stepback_server.gateway.tenant import ANYONE, Tenant
from stepback_server.jobs.job import JobAnswer, Report, State, Tokens
from stepback_server.jobs.opened import OpenedJobs
from stepback_server.jobs.searches import _last_rows
from stepback_server.jobs.tries import Tries
from stepback_server.settings import Settings
from stepback_server.storage.database import Database, migrations, upgrade
from stepback_server.storage.errors import StorageUnavailable
from stepback_server.storage.tables import EVENTS, JOBS
from tests.client.test_clients import RESULT
from tests.postgres import Postgres

pytestmark = pytest.mark.timeout(400)
NAME = ANYONE.name
T = TypeVar("T")


class Counting:
    """An endpoint that answers at once, and counts by whom it was asked."""

    def __init__(self, seconds: float = 0.001) -> None:
        self.seconds = seconds
        self.asked: list[int] = []

    async def __call__(
        self, body: Any, tenant: Tenant, *, is_line: bool, report: Report | None
    ) -> JobAnswer:
        await asyncio.sleep(self.seconds)
        self.asked.append(body["number"])
        return JobAnswer(200, json.dumps(body), Tokens(input=1, output=2))


class Halfway(Counting):
    """Tells its totals twice, then goes on for ever; refuses what has the number 0."""

    async def __call__(
        self, body: Any, tenant: Tenant, *, is_line: bool, report: Report | None
    ) -> JobAnswer:
        if body["number"] == 0:
            kind = ErrorType.INVALID_REQUEST
            error = ErrorDetail(type=kind, code="out_of_range", message="number: not 0")
            return JobAnswer(422, ErrorBody(error=error).model_dump_json())
        assert report is not None
        for tokens in (10, 20):
            totals = {"generated_tokens": tokens, "cached_tokens": 0, "branches": body["number"]}
            report(UsageEvent.model_validate(totals | {"backtracks": 0, "seconds_searching": 1.5}))
            report(StepEvent(branch=1, parent=0, index=0, text="1+2=3"))
        await asyncio.sleep(10_000)
        raise AssertionError


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.db"
    cluster: Postgres = request.getfixturevalue("cluster")
    return cluster.create(f"test_{time.monotonic_ns()}")


@asynccontextmanager
async def controllers(
    url: str,
    *endpoints: Counting,
    find_tenant: Callable[[str], Tenant | None] = lambda _: ANYONE,
    **settings: str,
) -> AsyncGenerator[list[OpenedJobs]]:
    """One for each endpoint, over one database."""
    read = {"STEPBACK_DATABASE_URL": url, "STEPBACK_LEASE_SECONDS": "5"} | settings
    opened = [
        await OpenedJobs.open(
            Settings.read(read), {"/solve": each}, lambda: "model", find_tenant, Tries()
        )
        for each in endpoints
    ]
    try:
        yield opened
    finally:
        for each in opened:
            await each.close(0)


async def begin(jobs: OpenedJobs, count: int, name: str = NAME) -> Batch:
    async def content() -> AsyncIterator[bytes]:
        for number in range(count):
            line = {"custom_id": str(number), "method": "POST", "url": "/solve"}
            yield json.dumps(line | {"body": {"number": number}}).encode() + b"\n"

    file = await jobs.files.add(name, "in.jsonl", content(), None)
    batch = await jobs.batches.add(name, BatchRequest(input_file_id=file.id, endpoint="/solve"))
    jobs.runner.wake()
    return batch


async def come(found: Callable[[], Awaitable[T | None]]) -> T:
    """Wait until a call gives something, through outages."""
    async with asyncio.timeout(300):
        while True:
            with suppress(StorageUnavailable):
                if (value := await found()) is not None:
                    return value
            await asyncio.sleep(0.2)


async def until(
    jobs: OpenedJobs, batch: Batch, done: Callable[[Batch], bool], name: str = NAME
) -> Batch:
    async def found() -> Batch | None:
        now = await jobs.batches.find(name, batch.id)
        return now if done(now) else None

    return await come(found)


async def search_that(jobs: OpenedJobs, is_so: Callable[[SearchJob], bool]) -> SearchJob | None:
    [job] = (await jobs.searches.list(NAME, limit=2, after=None)).data
    return job if is_so(job) else None


def is_completed(batch: Batch) -> bool:
    return batch.status is BatchStatus.COMPLETED


async def ids_of(jobs: OpenedJobs, batch: Batch) -> list[int]:
    assert batch.output_file_id is not None
    chunks = [chunk async for chunk in jobs.files.content(NAME, batch.output_file_id)]
    return [int(json.loads(line)["custom_id"]) for line in b"".join(chunks).splitlines()]


def test_two_controllers_share_a_batch_and_none_asks_what_the_other_has(url: str) -> None:
    async def scenario() -> None:
        # So slow that neither can take all of them before the other has looked.
        one, two = Counting(0.05), Counting(0.05)
        async with controllers(url, one, two) as [jobs, other]:
            batch = await until(other, await begin(jobs, 300), is_completed)
            assert await ids_of(other, batch) == list(range(300))
            assert sorted(one.asked + two.asked) == list(range(300))
            assert one.asked and two.asked
            assert batch.usage.total_tokens == 900

    asyncio.run(scenario())


def test_what_a_lost_controller_had_in_flight_goes_on_at_another(url: str) -> None:
    async def scenario() -> None:
        stuck, fast = Counting(seconds=10_000), Counting()
        async with controllers(url, stuck) as [lost]:
            await lost.searches.add(NAME, "/solve", json.dumps({"number": 7}))
            lost.runner.wake()
            await come(lambda: search_that(lost, lambda found: found.status is JobStatus.RUNNING))
            for task in lost._tasks:
                task.cancel()
            async with controllers(url, fast) as [jobs]:
                found = await come(lambda: search_that(jobs, lambda job: job.ended_at is not None))
            assert (found.attempts, fast.asked) == (2, [7])

    asyncio.run(scenario())


def test_a_list_tells_the_progress_of_each_search_and_the_errors(url: str) -> None:
    async def scenario() -> None:
        async with controllers(url, Halfway()) as [jobs]:
            for number in (0, 1, 2):
                await jobs.searches.add(NAME, "/solve", json.dumps({"number": number}))
            jobs.runner.wake()

            async def halfway() -> list[SearchJob] | None:
                found = (await jobs.searches.list(NAME, limit=3, after=None)).data
                known = [job for job in found if job.progress or job.error]
                return found if len(known) == 3 else None

            second, first, refused = await come(halfway)
            for job, branches in ((first, 1), (second, 2)):
                assert job.status is JobStatus.RUNNING and job.error is None
                assert job.progress is not None
                assert (job.progress.generated_tokens, job.progress.branches) == (20, branches)
            assert refused.status is JobStatus.FAILED and refused.progress is None
            assert refused.error is not None and refused.error.message == "number: not 0"
            assert refused == await jobs.searches.find(NAME, refused.id)

    asyncio.run(scenario())


async def queued_with_events(jobs: OpenedJobs, searches: int, rows: int) -> list[int]:
    """Queue searches with so many rows of events each, and return their numbers."""
    for task in jobs._tasks:
        task.cancel()
    for _ in range(searches):
        await jobs.searches.add(NAME, "/solve", "{}")
    totals = {"cached_tokens": 0, "branches": 1, "backtracks": 0, "seconds_searching": 1.5}
    usage = [
        UsageEvent.model_validate(totals | {"generated_tokens": first}).model_dump_json()
        for first in range(1, rows + 1)
    ]
    async with jobs.database.begin() as connection:
        numbers = list((await connection.execute(select(JOBS.c.number))).scalars())
        kept = [
            {"job": number, "first": first, "count": 1, "data": data}
            for number in numbers
            for first, data in enumerate(usage, 1)
        ]
        await connection.execute(insert(EVENTS), kept)
    return numbers


def test_the_longest_page_tells_the_last_totals_of_each_search(url: str) -> None:
    async def scenario() -> None:
        async with controllers(url, Counting()) as [jobs]:
            await queued_with_events(jobs, 100, 12)
            found = (await jobs.searches.list(NAME, limit=100, after=None)).data
            assert [job.progress and job.progress.generated_tokens for job in found] == [12] * 100

    asyncio.run(scenario())


def test_a_search_with_a_result_has_no_progress_besides(url: str) -> None:
    async def scenario() -> None:
        async with controllers(url, Counting()) as [jobs]:
            await queued_with_events(jobs, 1, 2)
            [queued] = (await jobs.searches.list(NAME, limit=1, after=None)).data
            assert (await jobs.searches.find(NAME, queued.id)).progress is not None
            done = {"state": State.DONE, "status": 200, "answer": json.dumps(RESULT)}
            async with jobs.database.begin() as connection:
                await connection.execute(update(JOBS).values(done))
            found = await jobs.searches.find(NAME, queued.id)
            assert found.result is not None and found.progress is None

    asyncio.run(scenario())


def test_a_list_reads_no_more_of_a_search_that_has_many_events(tmp_path: Path) -> None:
    async def steps(rows: int) -> int:
        """Instructions that SQLite runs for the last rows of three searches."""
        count = 0

        def step() -> None:
            nonlocal count
            count += 1

        async with controllers(f"sqlite:///{tmp_path}/{rows}.db", Counting()) as [jobs]:
            numbers = await queued_with_events(jobs, 3, rows)
            async with jobs.database.begin() as connection:
                driver: Any = (await connection.get_raw_connection()).driver_connection
                await driver.set_progress_handler(step, 1)
                assert len((await connection.execute(_last_rows(numbers))).all()) == 24
                await driver.set_progress_handler(None, 1)
        return count

    assert 0 < asyncio.run(steps(10)) == asyncio.run(steps(1000))


def test_an_outage_loses_nothing_and_asks_nothing_twice(cluster: Postgres) -> None:
    async def scenario() -> None:
        url, endpoint = cluster.create(f"outage_{time.monotonic_ns()}"), Counting(0.02)
        async with controllers(url, endpoint) as [jobs]:
            begun = await begin(jobs, 400)
            await until(jobs, begun, lambda batch: batch.request_counts.completed > 50)
            await asyncio.to_thread(cluster.stop)
            with pytest.raises(StorageUnavailable):
                await jobs.batches.find(NAME, begun.id)
            await asyncio.sleep(6)
            await asyncio.to_thread(cluster.start)
            batch = await until(jobs, begun, is_completed)
            assert await ids_of(jobs, batch) == list(range(400))
            assert sorted(endpoint.asked) == list(range(400))

    asyncio.run(scenario())


def test_the_migrations_make_the_schema_that_the_code_has(url: str) -> None:
    async def scenario() -> None:
        database = Database(url)
        await database.upgrade()
        async with database.begin() as connection:
            await connection.run_sync(_check)
        await database.close()

    asyncio.run(scenario())


def test_the_command_migrates_and_says_what_is_wrong(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STEPBACK_DATABASE_URL", url)
    assert (db(["upgrade"]), db(["upgrade"])) == (0, 0)
    assert "is of this version" in capsys.readouterr().out

    async def age() -> None:
        database = Database(url)
        async with database.begin() as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        await database.close()

    asyncio.run(age())
    assert db(["upgrade"]) == 2
    assert "use the newer one" in capsys.readouterr().err
    monkeypatch.setenv("STEPBACK_DATABASE_URL", "postgresql://me:secret@127.0.0.1:9/none")
    assert db(["upgrade"]) == 1
    assert "secret" not in capsys.readouterr().err


def _check(connection: Connection) -> None:
    command.check(migrations(connection))


def test_an_address_of_something_else_is_refused_without_its_password() -> None:
    for address in ("mysql://me:secret@host/name", "nonsense"):
        with pytest.raises(InvalidInput) as refused:
            asyncio.run(upgrade(address))
        assert "postgresql://" in str(refused.value) and "secret" not in str(refused.value)
