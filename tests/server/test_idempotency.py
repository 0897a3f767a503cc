"""One search for one Idempotency-Key: joined, replayed, refused, given up, forgotten."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from stepback_server.errors import ApiError
from stepback_server.gateway.idempotency import IdempotentAnswers


class Work:
    """Work that waits until it is released; counts its starts and its cancellations."""

    def __init__(self, answer: bytes = b"answer", error: Exception | None = None) -> None:
        self.answer, self.error = answer, error
        self.started = self.cancelled = 0
        self.release = asyncio.Event()

    async def __call__(self) -> bytes:
        self.started += 1
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        return self.answer


def answers(
    *, max_results: int = 8, max_bytes: int = 1000, seconds: float = 60, now: list[float]
) -> IdempotentAnswers:
    return IdempotentAnswers(
        max_results=max_results, max_bytes=max_bytes, seconds=seconds, clock=lambda: now[0]
    )


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def ask(
    store: IdempotentAnswers, work: Work, *, tenant: str = "t", key: str = "k", body: bytes = b"b"
) -> asyncio.Task[tuple[bytes, bool]]:
    return asyncio.create_task(store.once(tenant, key, body, work))


async def finished(store: IdempotentAnswers, key: str, answer: bytes = b"x") -> bool:
    """Ask for work that ends at once; gives whether it was a replay."""
    work = Work(answer)
    work.release.set()
    return (await ask(store, work, key=key))[1]


def test_a_repeated_request_joins_the_search_and_later_gets_its_result() -> None:
    async def scenario() -> None:
        store, work = answers(now=[0.0]), Work()
        first, second = ask(store, work), ask(store, work)
        await asyncio.sleep(0.01)
        work.release.set()
        assert await asyncio.gather(first, second) == [(b"answer", False), (b"answer", True)]
        assert await ask(store, Work(b"other")) == (b"answer", True)
        assert work.started == 1

    run(scenario())


def test_another_body_is_refused_while_it_runs_and_afterwards() -> None:
    async def scenario() -> None:
        store, work = answers(now=[0.0]), Work()
        first = ask(store, work)
        await asyncio.sleep(0)
        with pytest.raises(ApiError, match="another request"):
            await ask(store, work, body=b"c")
        work.release.set()
        await first
        with pytest.raises(ApiError, match="another request"):
            await ask(store, work, body=b"c")

    run(scenario())


def test_tenants_do_not_see_each_others() -> None:
    async def scenario() -> None:
        store, one, other = answers(now=[0.0]), Work(b"one"), Work(b"other")
        one.release.set()
        other.release.set()
        assert await ask(store, one, tenant="t") == (b"one", False)
        assert await ask(store, other, tenant="u", body=b"c") == (b"other", False)

    run(scenario())


def test_one_of_two_hangs_up_and_the_other_still_gets_the_answer() -> None:
    async def scenario() -> None:
        for leaver in (0, 1):
            store, work = answers(now=[0.0]), Work()
            calls = [ask(store, work), ask(store, work)]
            await asyncio.sleep(0.01)
            calls[leaver].cancel()
            await asyncio.sleep(0.01)
            assert work.cancelled == 0
            work.release.set()
            assert (await calls[1 - leaver])[0] == b"answer"

    run(scenario())


def test_when_all_have_left_the_search_is_cancelled_and_forgotten() -> None:
    async def scenario() -> None:
        store, work = answers(now=[0.0]), Work()
        calls = [ask(store, work), ask(store, work)]
        await asyncio.sleep(0.01)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert work.cancelled == 1
        assert not await finished(store, "k")

    run(scenario())


def test_an_error_goes_to_all_who_wait_and_is_not_kept() -> None:
    async def scenario() -> None:
        store, work = answers(now=[0.0]), Work(error=ValueError("no"))
        calls = [ask(store, work), ask(store, work)]
        await asyncio.sleep(0.01)
        work.release.set()
        for call in calls:
            with pytest.raises(ValueError, match="no"):
                await call
        assert not await finished(store, "k")
        assert await finished(store, "k")

    run(scenario())


def test_results_are_forgotten_by_age_count_and_size_the_oldest_first() -> None:
    async def scenario() -> None:
        now = [0.0]
        store = answers(now=now, max_results=2, max_bytes=100, seconds=60)
        assert not await finished(store, "a")
        now[0] = 59.0
        assert await finished(store, "a")
        now[0] = 60.0
        assert not await finished(store, "a")
        await finished(store, "b")
        await finished(store, "c")
        assert await finished(store, "b") and await finished(store, "c")
        assert not await finished(store, "a")
        await finished(store, "d", b"x" * 100)
        assert await finished(store, "d")
        assert not await finished(store, "c")
        await finished(store, "e", b"x" * 101)
        assert not await finished(store, "e"), "larger than all there is"

    run(scenario())


def test_a_running_search_is_never_forgotten() -> None:
    async def scenario() -> None:
        store, work = answers(now=[0.0], max_results=0), Work()
        first = ask(store, work)
        await asyncio.sleep(0.01)
        for number in range(5):
            await finished(store, f"k{number}")
        second = ask(store, work)
        await asyncio.sleep(0.01)
        work.release.set()
        assert await second == (b"answer", True) and work.started == 1
        await first

    run(scenario())
