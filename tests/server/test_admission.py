"""The queue before the searches."""

import asyncio

import pytest

from stepback_server.admission import Admission, QueueFull


def test_searches_past_the_limit_wait_and_past_the_queue_are_refused() -> None:
    async def scenario() -> None:
        admission = Admission(max_searches=2, max_queued=1)
        release = asyncio.Event()

        async def search() -> None:
            async with admission.slot():
                await release.wait()

        tasks = [asyncio.create_task(search()) for _ in range(3)]
        await asyncio.sleep(0)
        assert (admission.searching, admission.queued) == (2, 1)
        assert admission.is_full
        with pytest.raises(QueueFull) as refusal:
            async with admission.slot():
                pass
        assert refusal.value.retry_after >= 1
        release.set()
        await asyncio.gather(*tasks)
        assert (admission.searching, admission.queued) == (0, 0)

    asyncio.run(scenario())


def test_one_who_leaves_the_queue_frees_his_place() -> None:
    async def scenario() -> None:
        admission = Admission(max_searches=1, max_queued=1)
        async with admission.slot():

            async def search() -> None:
                async with admission.slot():
                    pass

            waiting = asyncio.create_task(search())
            await asyncio.sleep(0)
            assert admission.is_full
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert not admission.is_full
        async with admission.slot() as seconds:
            assert seconds < 1

    asyncio.run(scenario())
