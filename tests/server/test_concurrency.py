"""An alarm interrupts those who work under it, and nobody else."""

import asyncio

import pytest

from stepback_server.concurrency import Alarm, Interrupted


async def forever() -> None:
    await asyncio.Event().wait()


async def under(alarm: Alarm, work: asyncio.Event) -> str:
    async with alarm.interrupts():
        await work.wait()
        return "done"


def test_everybody_under_it_is_interrupted_also_who_comes_later() -> None:
    async def scenario() -> None:
        alarm, other = Alarm(), Alarm()
        works = [asyncio.create_task(under(alarm, asyncio.Event())) for _ in range(3)]
        ends = asyncio.Event()
        spared = asyncio.create_task(under(other, ends))
        await asyncio.sleep(0)
        alarm.ring()
        alarm.ring()
        works.append(asyncio.create_task(under(alarm, asyncio.Event())))
        results = await asyncio.gather(*works, return_exceptions=True)
        assert [type(result) for result in results] == [Interrupted] * 4
        ends.set()
        assert await spared == "done"

    asyncio.run(scenario())


def test_work_that_has_ended_is_not_interrupted() -> None:
    async def scenario() -> None:
        alarm, work = Alarm(), asyncio.Event()
        work.set()
        assert await under(alarm, work) == "done"
        alarm.ring()
        await asyncio.sleep(0)

    asyncio.run(scenario())


def test_another_timeout_and_another_cancellation_remain_what_they_are() -> None:
    async def scenario() -> None:
        alarm = Alarm()
        with pytest.raises(TimeoutError):
            async with alarm.interrupts(), asyncio.timeout(0.001):
                await forever()
        work = asyncio.create_task(under(alarm, asyncio.Event()))
        await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(scenario())
