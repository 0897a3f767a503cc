"""Keys that share a controller's slots, and controllers that know different keys."""

import asyncio
import json
from collections import Counter as Count
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from stepback_core.schemas.jobs import JobStatus, SearchJob
from stepback_server.gateway.tenant import Tenant
from stepback_server.jobs.claims import Claims
from stepback_server.jobs.job import JobAnswer, NotNow, Report
from stepback_server.jobs.opened import OpenedJobs
from stepback_server.storage.tables import CONTROLLERS, JOBS
from tests.server.jobs.test_databases import Counting, begin, come, controllers, is_completed, until
from tests.server.jobs.test_databases import url as url
from tests.training.evaluate.made import result

pytestmark = pytest.mark.timeout(400)
MONTHS = 100 * 86_400


def known(*names: str, **limits: int) -> Callable[[str], Tenant | None]:
    """A ring of keys, some with as many searches as they may have in flight."""
    tenants = {name: Tenant(name, limits.get(name)) for name in (*names, *limits)}
    return tenants.get


async def search(jobs: OpenedJobs, name: str, number: int = 0) -> str:
    return (await jobs.searches.add(name, "/solve", json.dumps({"number": number}))).id


async def ended(jobs: OpenedJobs, name: str, id: str) -> SearchJob:
    async def found() -> SearchJob | None:
        job = await jobs.searches.find(name, id)
        return job if job.ended_at is not None else None

    jobs.runner.wake()
    return await come(found)


class Solving(Counting):
    """An endpoint whose answers are those of searches, which are checked when they are read."""

    async def __call__(
        self, body: Any, tenant: Tenant, *, is_line: bool, report: Report | None
    ) -> JobAnswer:
        await super().__call__(body, tenant, is_line=is_line, report=report)
        return JobAnswer(200, result().model_dump_json())


class Spent(Solving):
    """An endpoint at which one key has no tokens left."""

    async def __call__(
        self, body: Any, tenant: Tenant, *, is_line: bool, report: Report | None
    ) -> JobAnswer:
        if tenant.name == "a":
            self.asked.append(-1)
            raise NotNow(10_000, is_for_key=True)
        return await super().__call__(body, tenant, is_line=is_line, report=report)


def test_jobs_of_a_key_wait_for_a_controller_that_knows_it(url: str) -> None:
    async def scenario() -> None:
        old, new = Solving(), Solving()
        async with controllers(url, old, find_tenant=known("old")) as [jobs]:
            lines, waiting = await begin(jobs, 3, "new"), await search(jobs, "new", 7)
            await ended(jobs, "old", await search(jobs, "old", 8))
            for number in range(2):  # The second after the lines have come into the queue.
                await until(jobs, await begin(jobs, 1, "old"), is_completed, "old")
                assert (await jobs.searches.find("new", waiting)).status is JobStatus.QUEUED, number
            async with controllers(url, new, find_tenant=known("old", "new")) as [other]:
                job = await ended(other, "new", waiting)
                batch = await until(other, lines, is_completed, "new")
        assert job.status is JobStatus.COMPLETED and job.attempts == 1
        assert batch.request_counts.completed == 3
        assert sorted(new.asked) == [0, 1, 2, 7] and sorted(old.asked) == [0, 0, 8]

    asyncio.run(scenario())


def test_searches_of_a_key_that_nobody_knows_end_after_a_time(url: str) -> None:
    async def scenario() -> None:
        async with controllers(url, Solving(), find_tenant=known("b")) as [jobs]:
            old, young = await search(jobs, "gone"), await search(jobs, "gone")
            async with jobs.database.begin() as connection:
                aged = update(JOBS).where(JOBS.c.id == old)
                await connection.execute(aged.values(created=JOBS.c.created - MONTHS))
            await jobs.claims.end_unknown(jobs.keep_seconds)
            job = await jobs.searches.find("gone", old)
            assert job.error is not None and job.error.code == "unknown_key"
            assert (await jobs.searches.find("gone", young)).status is JobStatus.QUEUED

    asyncio.run(scenario())


def test_a_key_that_is_withdrawn_while_its_job_is_claimed_gives_it_back(url: str) -> None:
    async def scenario() -> None:
        looks = Count[str]()

        def withdrawn(name: str) -> Tenant | None:
            looks[name] += 1
            return Tenant(name) if looks[name] == 1 else None

        async with controllers(url, Solving(), find_tenant=withdrawn) as [jobs]:
            id = await search(jobs, "a")
            jobs.runner.wake()

            async def given_back() -> bool | None:
                return (looks["a"] > 2 and not jobs.runner.running) or None

            await come(given_back)
            job = await jobs.searches.find("a", id)
            assert (job.status, job.attempts) == (JobStatus.QUEUED, 0)

    asyncio.run(scenario())


async def claims_of(jobs: OpenedJobs, keys: Callable[[str], Tenant | None]) -> Claims:
    """Claims of one more controller, which nobody takes for dead."""
    alive = {"id": "me", "heartbeat": jobs.database.now + MONTHS}
    async with jobs.database.begin() as connection:
        await connection.execute(insert(CONTROLLERS).values(alive))
    return Claims(jobs.database, lambda: "model", ["/solve"], keys)


async def taken(claims: Claims, **room: int) -> Count[str]:
    return Count(job.tenant for job in await claims.claim("me", **({"searches": 0} | room)))


def test_a_free_slot_goes_to_the_key_with_fewer_in_flight(url: str) -> None:
    async def scenario() -> None:
        async with controllers(url, Solving(), find_tenant=known()) as [jobs]:
            claims = await claims_of(jobs, known("a", "b", "c"))
            for number in range(40):
                await search(jobs, "a", number)
            assert await taken(claims, searches=8, lines=0) == {"a": 8}
            for name in "bbbcccc":
                await search(jobs, name)
            # Those that have none first, and none twice before the other.
            assert await taken(claims, searches=1, lines=0) == {"b": 1}
            assert await taken(claims, searches=1, lines=0) == {"c": 1}
            assert await taken(claims, searches=6, lines=0) == {"b": 2, "c": 3}
            assert await taken(claims, searches=1, lines=0) == {"a": 1}

    asyncio.run(scenario())


@pytest.mark.parametrize("slots", [1, 4])
def test_lines_of_several_keys_take_turns(url: str, slots: int) -> None:
    async def scenario() -> None:
        async with controllers(url, Solving(), find_tenant=known()) as [jobs]:
            for name in "aab":
                batch = await begin(jobs, 20, name)
                await until(jobs, batch, lambda each: each.in_progress_at is not None, name)
            claims = await claims_of(jobs, known("a", "b"))
            all_taken = Count[str]()
            for _ in range(8 // slots):
                all_taken += await taken(claims, lines=slots)
            assert all_taken == {"a": 4, "b": 4}
            # The rest of the older batch and the beginning of the younger one.
            assert await taken(claims, lines=40) == {"a": 20, "b": 16}

    asyncio.run(scenario())


def test_a_key_holds_no_more_slots_than_it_may_search_with(url: str) -> None:
    async def scenario() -> None:
        async with controllers(url, Solving(), find_tenant=known()) as [jobs]:
            for name in "aaaab":
                await search(jobs, name)
            claims = await claims_of(jobs, known("b", a=2))
            assert await taken(claims, searches=8, lines=0) == {"a": 2, "b": 1}
            assert await taken(claims, searches=8, lines=0) == {}

    asyncio.run(scenario())


@pytest.mark.parametrize("is_line", [False, True])
def test_a_key_without_tokens_holds_no_slot(url: str, is_line: bool) -> None:
    async def scenario() -> None:
        endpoint = Spent()
        few = {"STEPBACK_MAX_SEARCHES": "2", "STEPBACK_BATCH_SEARCHES": "2"}
        async with controllers(url, endpoint, find_tenant=known("a", "b"), **few) as [jobs]:
            if is_line:
                await begin(jobs, 10, "a")
                await until(jobs, await begin(jobs, 5, "b"), is_completed, "b")
            else:
                for _ in range(10):
                    await search(jobs, "a")
                for _ in range(5):
                    await ended(jobs, "b", await search(jobs, "b"))
            # Not asked again and again: all of the key's jobs wait.
            assert 0 < endpoint.asked.count(-1) <= 2
            async with jobs.database.begin() as connection:
                of_a = select(JOBS.c.state, JOBS.c.attempts).where(JOBS.c.tenant == "a")
                assert {*(await connection.execute(of_a))} == {("queued", 0)}

    asyncio.run(scenario())
