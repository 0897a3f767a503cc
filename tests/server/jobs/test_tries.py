"""Tries of jobs side by side, where one of them kills engines."""

import asyncio

import pytest

from stepback_server.errors import ApiError
from stepback_server.jobs.job import NotNow
from stepback_server.jobs.tries import MOST_LOSSES, Tries

pytestmark = pytest.mark.timeout(60)
LOST = NotNow(0, is_loss=True)


def test_a_last_try_is_made_without_any_job_that_an_engine_was_lost_with() -> None:
    async def scenario() -> None:
        tries, asked = Tries(), 0
        again, killed = asyncio.Event(), asyncio.Event()
        is_last, beside = False, 0

        async def victim() -> str:
            nonlocal asked, is_last
            asked += 1
            if asked == 1:
                raise LOST
            if asked == 2:
                again.set()
                await killed.wait()
                raise LOST
            is_last = True
            for _ in range(100):
                await asyncio.sleep(0)
            is_last = False
            return "answer"

        async def killer() -> str:
            nonlocal beside
            await again.wait()
            if not killed.is_set():
                killed.set()
                raise LOST
            for _ in range(50):
                await asyncio.sleep(0)
                beside += is_last
            raise LOST

        both = (tries.until_answered(victim), tries.until_answered(killer))
        answer, error = await asyncio.gather(*both, return_exceptions=True)
        assert (answer, beside) == ("answer", 0)
        assert isinstance(error, ApiError) and error.body.error.code == "engine_lost"

    asyncio.run(scenario())


def test_second_tries_are_made_side_by_side() -> None:
    async def scenario() -> None:
        tries, together = Tries(), asyncio.Barrier(3)

        async def until_answered() -> str:
            is_again = False

            async def ask() -> str:
                nonlocal is_again
                if not is_again:
                    is_again = True
                    raise LOST
                await together.wait()
                return "answer"

            return await tries.until_answered(ask)

        answers = await asyncio.gather(*(until_answered() for _ in range(3)))
        assert answers == ["answer"] * 3

    asyncio.run(scenario())


def test_a_stop_does_not_take_back_what_the_last_loss_decided() -> None:
    async def scenario() -> None:
        tries, losses = Tries(), 0

        async def ask() -> str:
            nonlocal losses
            losses += 1
            if losses == MOST_LOSSES:
                tries.stop()
            raise LOST

        with pytest.raises(ApiError) as refused:
            await tries.until_answered(ask)
        assert refused.value.body.error.code == "engine_lost"

    asyncio.run(scenario())


@pytest.mark.parametrize("stops_first", [True, False])
def test_no_second_try_is_waited_for_after_a_stop(stops_first: bool) -> None:
    async def scenario() -> None:
        tries, asked = Tries(), asyncio.Event()

        async def ask() -> str:
            asked.set()
            raise NotNow(3600)

        if stops_first:
            tries.stop()
        waiting = asyncio.create_task(tries.until_answered(ask))
        await asked.wait()
        tries.stop()
        with pytest.raises(NotNow):
            await waiting

    asyncio.run(scenario())


@pytest.mark.parametrize(("losses", "others"), [(2, 1), (1, 2)])
def test_a_stop_holds_for_a_try_that_waits_for_its_place(losses: int, others: int) -> None:
    # A last try makes others wait, and waits itself while an earlier one lasts.
    async def scenario() -> None:
        tries, go_on = Tries(), asyncio.Event()
        asked = {"holder": 0, "waiter": 0}

        async def holder() -> str:
            asked["holder"] += 1
            if asked["holder"] <= losses:
                raise LOST
            await go_on.wait()
            return "answer"

        async def waiter() -> str:
            asked["waiter"] += 1
            raise LOST

        async def all_that_can_happen() -> None:
            for _ in range(100):
                await asyncio.sleep(0)

        first = asyncio.create_task(tries.until_answered(holder))
        await all_that_can_happen()
        second = asyncio.create_task(tries.until_answered(waiter))
        await all_that_can_happen()
        tries.stop()
        await all_that_can_happen()
        assert not second.done()  # It waits for its place, and not for a second to pass.
        go_on.set()
        answer, later = await asyncio.gather(first, second, return_exceptions=True)
        assert answer == "answer" and isinstance(later, NotNow)
        assert asked == {"holder": losses + 1, "waiter": others}

    asyncio.run(scenario())
