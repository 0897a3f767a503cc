"""The queue before the searches: bounds, fairness, and who is refused."""

import asyncio
import selectors
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepback_server.errors import ApiError
from stepback_server.gateway.admission import Admission
from stepback_server.gateway.rate_limit import RateLimiter
from stepback_server.gateway.tenant import Tenant

ALICE, BOB = Tenant("alice"), Tenant("bob")


@contextmanager
def counted(counter: Counter[str], name: str) -> Iterator[Callable[[], None]]:
    """Count a name until the end, or until what it gives is called."""
    counter[name] += 1
    with ExitStack() as once:
        once.callback(counter.subtract, [name])
        yield once.close


@dataclass
class House:
    """Searches that stay until they are let go; keeps the order in which places were given."""

    admission: Admission
    order: list[str] = field(default_factory=list)
    inside: Counter[str] = field(default_factory=lambda: Counter())
    outside: Counter[str] = field(default_factory=lambda: Counter())
    leave: list[asyncio.Event] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def come(self, tenant: Tenant, times: int = 1) -> list[asyncio.Task[None]]:
        came = [asyncio.create_task(self._search(tenant)) for _ in range(times)]
        self.tasks += came
        await settle()
        return came

    async def _search(self, tenant: Tenant) -> None:
        left = asyncio.Event()
        with counted(self.outside, tenant.name) as entered:
            async with self.admission.slot(tenant):
                entered()
                with counted(self.inside, tenant.name):
                    self.order.append(tenant.name)
                    self.leave.append(left)
                    await left.wait()

    async def one_leaves(self) -> None:
        self.leave.pop(0).set()
        await settle()

    async def all_leave(self) -> None:
        while self.leave:
            await self.one_leaves()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def settle() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(scenario)


def test_searches_past_the_limit_wait_and_past_the_queue_are_refused() -> None:
    async def scenario() -> None:
        house = House(Admission(max_searches=2, max_queued=1))
        await house.come(ALICE, 3)
        assert (house.admission.searching, house.admission.queued) == (2, 1)
        assert house.admission.is_full
        with pytest.raises(ApiError, match="Too many searches") as refusal:
            async with house.admission.slot(ALICE):
                pass
        assert (refusal.value.retry_after or 0) >= 1
        await house.all_leave()
        assert (house.admission.searching, house.admission.queued) == (0, 0)
        assert house.admission.idle.is_set()

    run(scenario())


def test_one_who_leaves_the_queue_frees_his_place() -> None:
    async def scenario() -> None:
        house = House(Admission(max_searches=1, max_queued=1))
        await house.come(ALICE)
        [waiting] = await house.come(ALICE)
        assert house.admission.is_full
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert not house.admission.is_full
        await house.all_leave()
        async with house.admission.slot() as seconds:
            assert seconds < 1

    run(scenario())


def test_waiting_for_too_long_is_refused() -> None:
    async def scenario() -> None:
        admission = Admission(max_searches=1, max_queued=1, max_seconds=0.01)
        async with admission.slot(ALICE):
            with pytest.raises(ApiError, match="Too many searches"):
                async with admission.slot(BOB):
                    pass
            assert admission.queued == 0

    run(scenario())


def test_places_go_round_between_those_who_wait() -> None:
    async def scenario() -> None:
        house = House(Admission(max_searches=1, max_queued=20))
        await house.come(ALICE, 7)
        await house.come(BOB, 3)
        await house.all_leave()
        assert house.order == [*["alice", "bob"] * 3, *["alice"] * 4]

    run(scenario())


def test_a_tenants_own_limit_holds_and_blocks_nobody_else() -> None:
    async def scenario() -> None:
        house = House(Admission(max_searches=4, max_queued=8))
        carol = Tenant("carol", max_searches=2)
        await house.come(carol, 5)
        assert house.inside["carol"] == 2 and house.admission.queued == 3
        await house.come(BOB, 2)
        assert (house.inside["carol"], house.inside["bob"]) == (2, 2)
        await house.all_leave()
        assert house.order.count("carol") == 5

    run(scenario())


def test_a_full_queue_gives_way_to_one_who_waits_less() -> None:
    async def scenario() -> None:
        house = House(Admission(max_searches=1, max_queued=4))
        _, *waiting = await house.come(ALICE, 5)
        await house.come(BOB, 2)
        pushed_out = [task for task in waiting if task.done()]
        assert pushed_out == waiting[2:], "the newest go first"
        for task in pushed_out:
            assert code_of(task) == "queue_full"
        # Two each: now neither may take from the other.
        for tenant in (ALICE, BOB):
            [refused] = await house.come(tenant)
            assert code_of(refused) == "queue_full"
        await house.all_leave()
        assert house.order == ["alice", "bob", "alice", "bob", "alice"]

    run(scenario())


def test_a_place_given_at_the_moment_its_waiter_leaves_is_passed_on() -> None:
    async def scenario() -> None:
        house = House(Admission(max_searches=1, max_queued=4))
        await house.come(ALICE)
        [leaving] = await house.come(BOB)
        [next_one] = await house.come(ALICE)
        # Both in one turn of the loop: the place is bob's before he can say that he is gone.
        house.leave.pop(0).set()
        await asyncio.sleep(0)
        leaving.cancel()
        await settle()
        assert leaving.cancelled() and not next_one.done()
        assert house.inside["alice"] == 1 and house.admission.searching == 1
        await house.all_leave()

    run(scenario())


def test_tokens_are_asked_for_at_the_door_and_again_when_a_place_is_free() -> None:
    async def scenario() -> None:
        meter = RateLimiter(lambda: 0.0)
        house = House(Admission(max_searches=1, max_queued=4, meter=meter))
        dave = Tenant("dave", tokens_per_minute=60)
        _, waiting = await house.come(dave, 2)
        meter.charge(dave, 90)
        with pytest.raises(ApiError, match="used its tokens") as refusal:
            async with house.admission.slot(dave):
                pass
        assert refusal.value.retry_after == 31
        await house.one_leaves()
        assert code_of(waiting) == "tokens_per_minute"
        await house.come(BOB)
        assert house.inside["bob"] == 1
        await house.all_leave()

    run(scenario())


@settings(deadline=None, max_examples=100)
@given(st.text("ab", min_size=1, max_size=30))
def test_while_two_wait_neither_gets_two_places_in_a_row(arrivals: str) -> None:
    async def scenario() -> None:
        house = House(Admission(max_searches=1, max_queued=len(arrivals)))
        for name in arrivals:
            await house.come(Tenant(name))
        both_wait: list[bool] = []
        while house.leave:
            both_wait.append(house.outside["a"] > 0 and house.outside["b"] > 0)
            await house.one_leaves()
        turns = zip(pairwise(house.order), both_wait, strict=False)
        assert all(one != other for (one, other), both in turns if both)

    run(scenario())


TENANTS = {"a": Tenant("a"), "b": Tenant("b", max_searches=2), "c": Tenant("c")}
STEPS = st.lists(st.one_of(st.sampled_from([*TENANTS, "leave"]), st.integers(0, 99)), max_size=40)
"""A tenant comes, the longest inside leaves, or some number of those who came hangs up."""


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 4), st.integers(0, 5), STEPS)
def test_whatever_comes_and_goes_the_bounds_hold(
    places: int, queue: int, steps: list[str | int]
) -> None:
    async def scenario() -> None:
        house = House(Admission(max_searches=places, max_queued=queue))
        for step in steps:
            if isinstance(step, int):
                if house.tasks:
                    house.tasks[step % len(house.tasks)].cancel()
                    await settle()
            elif step in TENANTS:
                await house.come(TENANTS[step])
            elif house.leave:
                await house.one_leaves()
            check_bounds(house, places, queue)
        for task in house.tasks:
            task.cancel()
        await asyncio.gather(*house.tasks, return_exceptions=True)
        assert (house.admission.searching, house.admission.queued) == (0, 0)
        assert house.admission.idle.is_set()

    run(scenario())


def check_bounds(house: House, places: int, queue: int) -> None:
    admission = house.admission
    assert admission.searching == house.inside.total() <= places
    assert house.inside["b"] <= 2
    assert admission.queued == house.outside.total() <= queue
    # No place is left empty while somebody who may have it waits.
    blocked = house.inside["b"] == min(2, places)
    may_start = house.outside.total() - (house.outside["b"] if blocked else 0)
    assert admission.searching == places or not may_start


def code_of(task: asyncio.Task[None]) -> str:
    """Return the code that a refused search was answered with."""
    error = task.exception()
    assert isinstance(error, ApiError)
    return error.code


class _Jump(selectors.DefaultSelector):
    """Never waits: time jumps to whatever is due next."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "nothing is due, ever"
        self.now += max(0.0, timeout)
        return super().select(0)


class Jumping(asyncio.SelectorEventLoop):
    """A loop whose clock jumps over every wait: minutes of a simulation take none."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now


@dataclass
class Crowd:
    """Callers who come back when they are told to, until they get in."""

    admission: Admission
    random: Random
    told: list[int] = field(default_factory=list)
    """What each was told first."""
    again: list[int] = field(default_factory=list)
    """What was told to those who had come back when they were told to."""

    async def come(self, tenant: Tenant) -> None:
        told = self.told
        while True:
            try:
                async with self.admission.slot(tenant):
                    await asyncio.sleep(self.random.uniform(2, 4))
                    return
            except ApiError as refusal:
                assert refusal.retry_after is not None
                told.append(wait := refusal.retry_after)
                told = self.again
            await asyncio.sleep(wait)

    async def flood(self, tenant: Tenant, callers: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(self.come(tenant))


def simulate(scenario: Callable[[Crowd], Coroutine[Any, Any, None]]) -> Crowd:
    """A server that knows how long its searches take, and a crowd before it."""

    async def run() -> Crowd:
        crowd = Crowd(Admission(max_searches=32, max_queued=64), Random(3))
        await crowd.flood(ALICE, 32)
        assert not crowd.told
        await scenario(crowd)
        return crowd

    with asyncio.Runner(loop_factory=Jumping) as runner:
        return runner.run(run())


def test_whoever_comes_back_when_he_is_told_to_mostly_gets_in() -> None:
    """200 callers at once of 96 places: the last of them waits for three rounds of searches."""
    crowd = simulate(lambda crowd: crowd.flood(ALICE, 200))
    assert len(crowd.told) == 104
    assert crowd.told == sorted(crowd.told)
    assert max(crowd.told) in range(10, 16)
    assert len(crowd.again) <= 10


def test_a_flood_of_one_tenant_does_not_put_off_another() -> None:
    async def scenario(crowd: Crowd) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(crowd.flood(ALICE, 400))
            await asyncio.sleep(0.1)
            told = len(crowd.told)
            group.create_task(crowd.flood(BOB, 40))
            await asyncio.sleep(0.1)
            # The 32 of his that found a place have pushed out as many of alice's.
            bobs = [wait for wait in crowd.told[told:] if wait < 20]
            assert len(bobs) == 8

    simulate(scenario)


def test_nobody_is_told_to_wait_longer_than_one_may_wait() -> None:
    crowd = simulate(lambda crowd: crowd.flood(ALICE, 1500))
    assert max(crowd.told) == 60
