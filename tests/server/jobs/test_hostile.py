"""Jobs under what callers, databases and other controllers do at the worst moment."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from alembic import command
from sqlalchemy import insert, select, update

from stepback_core.errors import InvalidInput
from stepback_core.events import UsageEvent
from stepback_core.schemas.jobs import (
    BatchRequest,
    BatchStatus,
    JobStatus,
    Order,
    OutputExpiry,
    SearchJob,
)
from stepback_server.api.jobs import _events as follow
from stepback_server.errors import ApiError
from stepback_server.gateway.tenant import ANYONE, Tenant
from stepback_server.jobs.backlog import Backlog
from stepback_server.jobs.claims import Claims
from stepback_server.jobs.event_log import EventLog
from stepback_server.jobs.files import Files
from stepback_server.jobs.job import Job, JobAnswer, NotNow, Report, State
from stepback_server.jobs.opened import OpenedJobs
from stepback_server.jobs.searches import Searches
from stepback_server.jobs.writer import Answered
from stepback_server.storage.database import Database, migrations, upgrade
from stepback_server.storage.errors import StorageUnavailable
from stepback_server.storage.tables import CONTROLLERS, JOBS
from tests.postgres import Postgres
from tests.server.jobs.test_databases import (
    NAME,
    Counting,
    begin,
    come,
    controllers,
    is_completed,
    search_that,
    until,
)
from tests.server.jobs.test_databases import url as url

pytestmark = pytest.mark.timeout(400)


async def text_file(jobs: OpenedJobs, text: str, name: str = "in.jsonl") -> str:
    async def content() -> AsyncIterator[bytes]:
        yield text.encode()

    return (await jobs.files.add(NAME, name, content(), None)).id


async def running(jobs: OpenedJobs) -> SearchJob:
    """A search in the background that a controller has begun."""
    job = await jobs.searches.add(NAME, "/solve", json.dumps({"number": 7}))
    jobs.runner.wake()
    await come(lambda: search_that(jobs, lambda found: found.status is JobStatus.RUNNING))
    return job


def test_a_null_character_is_refused_and_stops_no_other_batch(url: str) -> None:
    async def scenario() -> None:
        async with controllers(url, Counting()) as [jobs]:
            line = {"custom_id": "a\0b", "method": "POST", "url": "/solve", "body": {"number": 1}}
            file = await text_file(jobs, json.dumps(line), "in\0.jsonl")
            request = BatchRequest(input_file_id=file, endpoint="/solve", metadata={"a": "\0"})
            refused = await jobs.batches.add(NAME, request)
            jobs.runner.wake()
            done = await until(jobs, refused, lambda batch: batch.failed_at is not None)
            assert done.errors and done.errors.data[0].param == "custom_id"
            for unknown in (
                jobs.batches.find(NAME, "a\0"),
                jobs.files.delete(NAME, "a\0"),
                jobs.searches.list(NAME, limit=1, after="\0"),
            ):
                with pytest.raises(ApiError):
                    await unknown
            none = await jobs.files.list(NAME, limit=1, after=None, purpose="\0")
            assert none.data == []
            await until(jobs, await begin(jobs, 5), is_completed)

    asyncio.run(scenario())


def test_two_writers_that_wait_for_each_other_are_an_outage(cluster: Postgres) -> None:
    async def scenario() -> None:
        database = Database(cluster.create(f"deadlock_{time.monotonic_ns()}"))
        await database.upgrade()
        async with database.begin() as connection:
            rows = [{"id": name, "heartbeat": 0.0} for name in "ab"]
            await connection.execute(insert(CONTROLLERS), rows)
        both = asyncio.Barrier(2)

        async def beat(*names: str) -> None:
            async with database.begin() as connection:
                for name in names:
                    row = update(CONTROLLERS).where(CONTROLLERS.c.id == name)
                    await connection.execute(row.values(heartbeat=1.0))
                    if name == names[0]:
                        await both.wait()

        errors = await asyncio.gather(beat("a", "b"), beat("b", "a"), return_exceptions=True)
        assert {type(error) for error in errors} == {type(None), StorageUnavailable}
        await database.close()

    asyncio.run(scenario())


def test_a_batch_whose_reading_an_outage_broke_off_is_read_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = Files.content, 0

    async def broken(self: Files, tenant: str, id: str) -> AsyncGenerator[bytes]:
        nonlocal calls
        calls += 1
        async for chunk in whole(self, tenant, id):
            yield chunk
            if calls == 1:
                raise StorageUnavailable("an outage")

    monkeypatch.setattr(Files, "content", broken)

    async def scenario() -> None:
        async with controllers(url, Counting()) as [jobs]:
            batch = await until(jobs, await begin(jobs, 5), is_completed)
            assert batch.request_counts.completed == 5 and calls == 2

    asyncio.run(scenario())


def test_a_defect_in_one_batch_leaves_the_others(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, first = Files.content, list[str]()

    async def broken(self: Files, tenant: str, id: str) -> AsyncGenerator[bytes]:
        if not first:
            first.append(id)
        if id in first:
            raise RuntimeError("a defect")
        async for chunk in whole(self, tenant, id):
            yield chunk

    monkeypatch.setattr(Files, "content", broken)

    async def scenario() -> None:
        async with controllers(url, Counting()) as [jobs]:
            lost = await begin(jobs, 1)
            await come(lambda: _present(first))
            await until(jobs, await begin(jobs, 5), is_completed)
            assert (await jobs.batches.find(NAME, lost.id)).status is BatchStatus.VALIDATING

    asyncio.run(scenario())


def _usage(cost: int) -> UsageEvent:
    return UsageEvent(
        branches=1, generated_tokens=cost, cached_tokens=0, backtracks=0, seconds_searching=1.0
    )


async def _present(found: list[str]) -> list[str] | None:
    return found or None


def test_a_cancelled_search_of_a_lost_controller_has_an_end(url: str) -> None:
    async def scenario() -> None:
        async with controllers(url, Counting(seconds=10_000)) as [lost]:
            job = await running(lost)
            for task in lost._tasks:
                task.cancel()
            await lost.searches.cancel(NAME, job.id)
            async with controllers(url, Counting()) as [jobs]:
                found = await come(lambda: search_that(jobs, lambda job: job.ended_at is not None))
            assert found.status is JobStatus.CANCELLED

    asyncio.run(scenario())


def test_a_stop_writes_what_has_an_answer(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, writing = Claims.finish, asyncio.Event()

    async def slow(self: Claims, owner: str, answered: Sequence[Answered]) -> None:
        writing.set()
        await asyncio.sleep(0.5)
        await whole(self, owner, answered)

    monkeypatch.setattr(Claims, "finish", slow)

    async def scenario() -> None:
        endpoint = Counting()
        async with controllers(url, endpoint) as [jobs]:
            begun = await begin(jobs, 3)
            await writing.wait()
        async with controllers(url, endpoint) as [jobs]:
            await until(jobs, begun, is_completed)
        assert sorted(endpoint.asked) == [0, 1, 2]

    asyncio.run(scenario())


def test_a_stop_waits_for_what_is_claimed_at_that_moment(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, claimed = Claims.claim, asyncio.Event()

    async def slow(self: Claims, owner: str, *, searches: int, lines: int) -> list[Job]:
        found = await whole(self, owner, searches=searches, lines=lines)
        if found:
            claimed.set()
            await asyncio.sleep(0.5)
        return found

    monkeypatch.setattr(Claims, "claim", slow)

    async def scenario() -> None:
        endpoint = Counting()
        async with controllers(url, endpoint) as [jobs]:
            await jobs.searches.add(NAME, "/solve", json.dumps({"number": 7}))
            jobs.runner.wake()
            await claimed.wait()
            await jobs.close(60)
        database = Database(url)
        async with database.begin() as connection:
            state = (await connection.execute(select(JOBS.c.state))).scalar_one()
        await database.close()
        assert (state, endpoint.asked) == (State.DONE, [7])

    asyncio.run(scenario())


def test_a_stop_in_an_outage_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(*_: object) -> None:
        raise StorageUnavailable("an outage")

    class Telling(Counting):
        async def __call__(
            self, body: Any, tenant: Tenant, *, is_line: bool, report: Report | None
        ) -> JobAnswer:
            assert report is not None
            report(_usage(1))
            return await super().__call__(body, tenant, is_line=is_line, report=report)

    monkeypatch.setattr(Searches, "append", gone)

    async def scenario() -> None:
        async with controllers(f"sqlite:///{tmp_path}/jobs.db", Telling(10_000)) as [jobs]:
            await running(jobs)
            async with asyncio.timeout(120):
                await jobs.close(0)

    asyncio.run(scenario())


def test_events_of_a_controller_that_lost_the_search_are_dropped(url: str) -> None:
    async def scenario() -> None:
        async with controllers(url, Counting(seconds=10_000)) as [jobs]:
            job = await running(jobs)
            async with jobs.database.begin() as connection:
                row = (await connection.execute(select(JOBS.c.number, JOBS.c.owner))).one()
            for owner, cost in (("a lost one", 1), (row.owner, 2)):
                await jobs.searches.append(owner, row.number, 1, [_usage(cost)])
            [(number, kept)], _ = await jobs.searches.events(NAME, job.id, 0)
            assert (number, kept["generated_tokens"]) == (1, 2)

    asyncio.run(scenario())


def test_events_whose_commit_is_reported_lost_keep_their_numbers(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, is_lost = Searches.append, asyncio.Event()

    async def append(self: Searches, owner: str, number: int, first: int, events: Any) -> None:
        await whole(self, owner, number, first, events)
        if not is_lost.is_set():
            is_lost.set()
            raise StorageUnavailable("the connection broke after the commit")

    monkeypatch.setattr(Searches, "append", append)

    async def scenario() -> None:
        async with controllers(url, Counting(seconds=10_000)) as [jobs]:
            job = await running(jobs)
            async with jobs.database.begin() as connection:
                row = (await connection.execute(select(JOBS.c.number, JOBS.c.owner))).one()
            async with EventLog(jobs.searches, row.owner, row.number) as log:
                log.add(_usage(1))
                await is_lost.wait()
                for cost in (2, 3):
                    log.add(_usage(cost))
            kept, _ = await jobs.searches.events(NAME, job.id, 0)
            assert [(number, event["generated_tokens"]) for number, event in kept] == [
                (1, 1),
                (2, 2),
                (3, 3),
            ]

    asyncio.run(scenario())


def test_who_follows_a_search_outlives_an_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = Searches.events, 0

    async def broken(self: Searches, tenant: str, id: str, after: int) -> Any:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise StorageUnavailable("an outage")
        return await whole(self, tenant, id, after)

    monkeypatch.setattr(Searches, "events", broken)

    async def scenario() -> None:
        async with controllers(f"sqlite:///{tmp_path}/jobs.db", Counting(0.5)) as [jobs]:
            job = await jobs.searches.add(NAME, "/solve", json.dumps({"number": 7}))
            jobs.runner.wake()
            sent = [chunk async for chunk in follow(jobs, NAME, job.id, 0)]
            assert b"event: result" in sent[-1] and calls >= 3

    asyncio.run(scenario())


def test_a_list_begins_with_the_oldest_where_it_is_so_ordered(url: str) -> None:
    async def scenario() -> None:
        async with controllers(url, Counting()) as [jobs]:
            ids = [await text_file(jobs, str(number)) for number in range(5)]
            for order, expected in ((Order.OLDEST, ids), (Order.NEWEST, ids[::-1])):
                found, after = list[str](), None
                while after != expected[-1]:
                    page = await jobs.files.list(
                        NAME, limit=2, after=after, purpose=None, order=order
                    )
                    found += [each.id for each in page.data]
                    after = page.last_id
                assert found == expected

    asyncio.run(scenario())


def test_output_files_are_kept_as_long_as_the_batch_says(url: str) -> None:
    async def scenario() -> None:
        async with controllers(url, Counting()) as [jobs]:
            line = {"custom_id": "a", "method": "POST", "url": "/solve", "body": {"number": 1}}
            expiry = OutputExpiry(anchor="created_at", seconds=3600)
            begun = await jobs.batches.add(
                NAME,
                BatchRequest(
                    input_file_id=await text_file(jobs, json.dumps(line)),
                    endpoint="/solve",
                    output_expires_after=expiry,
                ),
            )
            batch = await until(jobs, begun, is_completed)
            file = await jobs.files.find(NAME, batch.output_file_id or "")
            assert file.expires_at is not None and file.expires_at - file.created_at in (3600, 3601)

    asyncio.run(scenario())


def test_a_database_that_cannot_be_used_is_unavailable(tmp_path: Path, cluster: Postgres) -> None:
    (tmp_path / "other.db").write_bytes(b"no database" * 500)
    (tmp_path / "file").touch()
    for address, kind in (
        (f"sqlite:///{tmp_path}/other.db", StorageUnavailable),
        (f"sqlite:///{tmp_path}/file/jobs.db", InvalidInput),
        (f"{cluster.url}_none", StorageUnavailable),
        (cluster.url.replace("postgres@", "nobody_here@"), StorageUnavailable),
    ):
        with pytest.raises(kind):
            asyncio.run(upgrade(address))


def test_a_database_of_an_older_version_keeps_its_batches(url: str) -> None:
    async def scenario() -> None:
        old = Database(url)
        async with old.begin() as connection:
            await connection.run_sync(lambda known: command.upgrade(migrations(known), "0001"))
        await old.close()
        async with controllers(url, Counting()) as [jobs]:
            await until(jobs, await begin(jobs, 3), is_completed)

    asyncio.run(scenario())


def test_odd_numbers_and_ids_are_refused_or_unknown(jobs_server: httpx.Client) -> None:
    for query in ("after=99999999999999999999", "after=2147483648", "after=-1"):
        answer = jobs_server.get(f"/v1/searches/none/events?{query}")
        assert answer.status_code == 422, answer.text
    for path in ("/v1/files/%00", "/v1/batches/%00", "/v1/searches/%00/events"):
        assert jobs_server.get(path).status_code == 404
    for seconds in ("\u00b2", "9" * 5000, "3599", "-1"):
        form = {"purpose": "batch", "expires_after[seconds]": seconds}
        answer = jobs_server.post("/v1/files", files={"file": b"x"}, data=form)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == "expires_after.seconds"


def test_a_form_that_is_none_is_called_a_form(jobs_server: httpx.Client) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = jobs_server.post("/v1/files", content=b"rubbish", headers=headers)
    assert answer.status_code == 400 and "multipart" in answer.json()["error"]["message"]


class Killing(Counting):
    """An endpoint whose engine dies of one line, with all that is in flight."""

    def __init__(self, poison: int) -> None:
        super().__init__(seconds=0.05)
        self._poison = poison
        self._deaths = 0

    async def __call__(
        self, body: Any, tenant: Tenant, *, is_line: bool, report: Report | None
    ) -> JobAnswer:
        before = self._deaths
        self._deaths += body["number"] == self._poison
        answer = await super().__call__(body, tenant, is_line=is_line, report=report)
        if self._deaths > before:
            raise NotNow(0.01, is_loss=True)
        return answer


def test_a_line_that_kills_engines_becomes_an_error_and_those_beside_it_do_not(url: str) -> None:
    async def scenario() -> None:
        async with controllers(url, Killing(poison=3)) as [jobs]:
            batch = await until(jobs, await begin(jobs, 40), is_completed)
            counts = batch.request_counts
            assert (counts.completed, counts.failed) == (39, 1)
            chunks = [each async for each in jobs.files.content(NAME, batch.error_file_id or "")]
            [failed] = [json.loads(line) for line in b"".join(chunks).splitlines()]
            assert failed["custom_id"] == "3" and failed["response"]["status_code"] == 500
            error = failed["response"]["body"]["error"]
            assert error["code"] == "engine_lost" and "lost 3 times" in error["message"]

    asyncio.run(scenario())


def test_a_defect_while_jobs_are_counted_leaves_the_count_going(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stepback_server.jobs.backlog._SECONDS_BETWEEN_LOOKS", 0.01)
    looks = 0

    def model() -> str:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise ValueError
        return "model"

    async def scenario() -> None:
        database = Database(f"sqlite:///{tmp_path}/jobs.db")
        await database.upgrade()
        counting = asyncio.create_task(Backlog(database, model, ["/solve"], lambda _: ANYONE).run())
        while looks < 3:
            assert not counting.done()
            await asyncio.sleep(0.01)
        counting.cancel()
        await asyncio.gather(counting, return_exceptions=True)
        await database.close()

    asyncio.run(scenario())


def test_jobs_of_a_key_that_is_unknown_here_are_no_backlog(url: str) -> None:
    def find_tenant(name: str) -> Tenant | None:
        return None if name == "withdrawn" else ANYONE

    async def scenario() -> None:
        async with controllers(url, Counting(), find_tenant=find_tenant) as [jobs]:
            await jobs.runner.stop(0)
            for name, count in (("withdrawn", 3), (NAME, 2)):
                for number in range(count):
                    await jobs.searches.add(name, "/solve", json.dumps({"number": number}))

            # A look may fall between two of them: the last ones make the number.
            async def counted() -> float | None:
                return share if (share := jobs.backlog.share) >= 2 else None

            assert await come(counted) == 2

    asyncio.run(scenario())


def test_the_shares_of_controllers_add_up_to_the_jobs_that_wait(url: str) -> None:
    async def scenario() -> None:
        async with controllers(url, Counting(10_000), Counting(10_000)) as both:
            await begin(both[0], 100)

            async def counted() -> list[tuple[float, int]] | None:
                found = [(jobs.backlog.share, jobs.runner.running) for jobs in both]
                return found if sum(map(sum, found)) == 100 and all(map(all, found)) else None

            assert await come(counted) == [(34, 16), (34, 16)]

    asyncio.run(scenario())
