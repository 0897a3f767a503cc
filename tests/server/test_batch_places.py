"""Batches in admission: they wait as long as it takes, and yield to all others."""

import asyncio
from contextlib import AsyncExitStack

from stepback_server.gateway.admission import Admission, Urgency
from stepback_server.gateway.batch_places import BatchLimits, BatchPlaces
from stepback_server.gateway.tenant import ANYONE


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Batches:
    """Searches of batches that hold their places until `end`."""

    def __init__(self, admission: Admission, count: int) -> None:
        self.inside = 0
        self._end = asyncio.Event()
        self._tasks = [asyncio.create_task(self._search(admission)) for _ in range(count)]

    async def _search(self, admission: Admission) -> None:
        async with admission.slot(ANYONE, Urgency.BATCH):
            self.inside += 1
            await self._end.wait()
            self.inside -= 1

    async def end(self) -> None:
        self._end.set()
        await asyncio.gather(*self._tasks)


def admission(quiet_seconds: float, pause_seconds: float = 0.0) -> Admission:
    limits = BatchLimits(1, 3, pause_seconds, quiet_seconds=quiet_seconds)
    return Admission(max_searches=8, max_queued=0, batch_limits=limits)


def test_alone_batches_take_their_most_and_no_place_in_the_queue() -> None:
    async def scenario() -> None:
        door = admission(quiet_seconds=0)
        batches = Batches(door, 10)
        await settle()
        assert (batches.inside, door.searching, door.queued) == (3, 3, 0)
        await batches.end()
        assert door.searching == 0

    asyncio.run(scenario())


def test_while_a_caller_searches_batches_keep_to_the_floor() -> None:
    async def scenario() -> None:
        door = admission(quiet_seconds=0)
        async with door.slot():
            batches = Batches(door, 10)
            await settle()
            assert batches.inside == 1
        await settle()
        assert batches.inside == 3
        await batches.end()

    asyncio.run(scenario())


def test_batches_wait_for_a_quiet_time_after_a_caller() -> None:
    async def scenario() -> None:
        door = admission(quiet_seconds=0.3)
        async with door.slot():
            batches = Batches(door, 10)
            await settle()
        await settle()
        assert batches.inside == 1
        async with asyncio.timeout(60):
            while batches.inside < 3:  # noqa: ASYNC110 - the door tells nobody
                await asyncio.sleep(0.05)
        await batches.end()

    asyncio.run(scenario())


def test_a_line_rests_after_its_search_while_callers_leave_no_gap() -> None:
    places = BatchPlaces(BatchLimits(2, 16, 5.0, gap_seconds=0.05, quiet_seconds=1.0))
    assert places.room(0.0, has_others=True) == 2
    places.begin()
    places.begin()
    assert places.room(1.0, has_others=True) == 0
    places.end(1.0)
    assert places.room(1.0, has_others=True) == 0
    assert places.next_look(1.0, has_others=True) == 5.0
    assert places.room(6.0, has_others=True) == 1
    places.end(6.0)
    assert places.room(6.0, has_others=True) == 1
    places.other_ended(7.0)
    assert places.room(7.0, has_others=False) == 1
    assert places.next_look(7.0, has_others=False) == 0.05
    # In a gap none rests, and after a quiet time there are more.
    assert places.room(7.0625, has_others=False) == 2
    assert places.next_look(7.0625, has_others=False) == 0.9375
    assert places.room(8.0, has_others=False) == 16


def test_nothing_is_waited_for_where_time_changes_nothing() -> None:
    places = BatchPlaces(BatchLimits(1, 16, 0.0))
    places.begin()
    assert places.room(0.0, has_others=True) == 0
    assert places.next_look(0.0, has_others=True) is None
    places.end(0.0)
    assert places.room(0.0, has_others=True) == 1


def test_the_next_line_begins_once_the_last_one_has_rested() -> None:
    async def scenario() -> None:
        door = admission(quiet_seconds=60, pause_seconds=0.3)
        async with door.slot():
            first = Batches(door, 1)
            await settle()
            await first.end()
            second = Batches(door, 2)
            await settle()
            assert second.inside == 0
            async with asyncio.timeout(60):
                while not second.inside:  # noqa: ASYNC110 - the door tells nobody
                    await asyncio.sleep(0.05)
        await second.end()

    asyncio.run(scenario())


def test_a_free_place_goes_to_a_caller_and_then_to_the_background() -> None:
    async def scenario() -> None:
        door, order = Admission(max_searches=1, max_queued=2), list[Urgency]()

        async def search(urgency: Urgency) -> None:
            async with door.slot(ANYONE, urgency):
                order.append(urgency)

        async with AsyncExitStack() as stack:
            await stack.enter_async_context(door.slot())
            tasks = [asyncio.create_task(search(each)) for each in reversed(Urgency)]
            await settle()
        await asyncio.gather(*tasks)
        assert order == [Urgency.CALLER, Urgency.BACKGROUND, Urgency.BATCH]

    asyncio.run(scenario())


def test_one_that_leaves_while_it_waits_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        door = admission(quiet_seconds=0)
        batches = Batches(door, 3)
        await settle()
        waiting = asyncio.create_task(door._enter_patiently(ANYONE, Urgency.BATCH))
        await settle()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await batches.end()
        assert door.searching == 0

    asyncio.run(scenario())
