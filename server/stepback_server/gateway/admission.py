"""Admission of searches: limits in flight, a fair queue, and refusals."""

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import islice
from typing import Protocol

from stepback_server.errors import out_of_tokens, queue_full
from stepback_server.gateway.batch_places import BatchLimits, BatchPlaces
from stepback_server.gateway.rate_limit import RateLimiter
from stepback_server.gateway.tenant import ANYONE, Tenant


# An integer, since it travels through the database to other controllers.
class Urgency(IntEnum):
    """Urgency of a search by its kind of caller; a smaller one goes first."""

    CALLER = 0
    """A caller, on an open connection."""
    BACKGROUND = 1
    """A caller who comes back for it."""
    BATCH = 2
    """A file of many: it yields to all others."""


class Shared(Protocol):
    """Limits of keys over several controllers."""

    async def fresh(self, tenant: Tenant) -> None:
        """Return once what is known of a key is of after this call, or must be done without."""
        ...

    def changed(self) -> None:
        """Note that searches have ended, no longer wait, or may now begin."""
        ...


@dataclass(slots=True, eq=False)
class _Waiter:
    """A search that waits for a place, in the queue or outside of it."""

    tenant: Tenant
    place: asyncio.Future[None]
    since: float


@dataclass(slots=True, eq=False)
class _Lane:
    """One tenant's searches in flight and waiting, first come first served."""

    limit: int
    searching: int = 0
    waiting: deque[_Waiter] = field(default_factory=lambda: deque())
    promised: float = 0.0
    """Time, by the loop's clock, at which the last of its refused should come back."""
    at_the_door: list[tuple[Urgency, float]] = field(default_factory=lambda: [])
    """Searches that wait for the counts of other controllers, and since when."""
    granted: int | None = None
    """Places that this controller has of those that all share; None: it counts for itself."""
    has_rivals: bool = False
    """Searches of this tenant wait at other controllers."""

    @property
    def has_room(self) -> bool:
        return self.searching < (self.limit if self.granted is None else self.granted)


class Admission:
    """A bounded queue before a bounded number of searches in flight, fair between tenants.

    A place that becomes free goes to the tenant that was served longest ago, of those that wait and
    are below their own limit: between two that wait, places alternate. One tenant may use the whole
    queue while no other needs it; once it is full, a tenant that waits less takes the place of the
    newest in the longest lane."""

    def __init__(
        self,
        *,
        max_searches: int,
        max_queued: int,
        max_seconds: float = 60.0,
        meter: RateLimiter | None = None,
        waited: Callable[[float], None] = lambda seconds: None,
        batch_limits: BatchLimits | None = None,
        shared: Shared | None = None,
    ) -> None:
        """`waited` is called with the seconds in the queue of every search that enters or passes
        it, however it leaves, but not for those that are refused at once. `shared` knows of other
        controllers."""
        self._shared = shared
        self._max_searches = max_searches
        self._max_queued = max_queued
        self._max_seconds = max_seconds
        self._meter = meter or RateLimiter()
        self._waited = waited
        # By tenant, the one that was served longest ago first.
        self._lanes: OrderedDict[str, _Lane] = OrderedDict()
        # Mean seconds of a search; a guess until the first has ended.
        self._mean_seconds = 1.0
        self._ended = 0
        # When the searches in flight began, the oldest first.
        self._begun: dict[object, float] = {}
        self.searching = 0
        self.idle = asyncio.Event()
        """Set while no search is in flight."""
        self.idle.set()
        self._is_held = False
        self._batches = BatchPlaces(batch_limits or BatchLimits())
        self._next_look: asyncio.TimerHandle | None = None
        self._patient: dict[Urgency, deque[_Waiter]] = {
            Urgency.BACKGROUND: deque(),
            Urgency.BATCH: deque(),
        }

    @property
    def queued(self) -> int:
        return sum(len(lane.waiting) for lane in self._lanes.values())

    @property
    def is_full(self) -> bool:
        return self.queued >= self._max_queued and self.searching >= self._max_searches

    @contextmanager
    def held(self) -> Generator[None]:
        """Give no place meanwhile: who comes now waits in the queue, under its rules."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
            self._hand_out()

    @property
    def _has_room(self) -> bool:
        return not self._is_held and self.searching < self._max_searches

    @asynccontextmanager
    async def slot(
        self, tenant: Tenant = ANYONE, urgency: Urgency = Urgency.CALLER
    ) -> AsyncGenerator[float]:
        """Hold a place among the running searches; gives the seconds that it took to get one.
        Where no caller waits, the search waits outside of the queue, as long as it takes.

        Raises ApiError: `tokens_per_minute`; `queue_full`, at once when a tenant that waits less
        needs the place in the queue, or after `max_seconds` there. Leaving the queue by
        cancellation frees the place there.
        """
        arrived = _now()
        if self._shared is not None and tenant.is_limited:
            await self._learn(self._shared, tenant, urgency)
        self._refuse_without_tokens(tenant)
        if urgency is Urgency.CALLER:
            await self._enter(tenant)
        else:
            await self._enter_patiently(tenant, urgency)
        try:
            # Those before it in the queue may have spent the tokens.
            self._refuse_without_tokens(tenant)
            with self._timed() as started:
                yield started - arrived
        finally:
            self._leave(tenant, urgency)

    async def _learn(self, shared: Shared, tenant: Tenant, urgency: Urgency) -> None:
        """Learn what the tenant has at other controllers, and ask for a place among all."""
        lane, asks = self._lane(tenant), (urgency, _now())
        lane.at_the_door.append(asks)
        try:
            await shared.fresh(tenant)
        finally:
            lane.at_the_door.remove(asks)

    @contextmanager
    def _timed(self) -> Generator[float]:
        """Learn how long a search holds its place; gives when it began."""
        search, started = object(), _now()
        self._begun[search] = started
        try:
            yield started
        finally:
            del self._begun[search]
            self._ended += 1
            # Of the first ones the plain mean, then one that forgets.
            weight = max(0.1, 1 / self._ended)
            self._mean_seconds += weight * (_now() - started - self._mean_seconds)

    async def _enter(self, tenant: Tenant) -> None:
        lane = self._lane(tenant)
        if self._has_room and lane.has_room and not lane.waiting:
            self._take(tenant.name, Urgency.CALLER)
            self._waited(0.0)
            return
        if self.queued >= self._max_queued:
            self._push_out_for(lane)
        waiter = _waiter(tenant)
        lane.waiting.append(waiter)
        try:
            async with asyncio.timeout(self._max_seconds):
                await self._wait(waiter, lane)
        except TimeoutError:
            raise queue_full(self._retry_after(lane)) from None
        finally:
            self._waited(_now() - waiter.since)

    async def _wait(self, waiter: _Waiter, lane: _Lane) -> None:
        try:
            await waiter.place
        except BaseException:
            if waiter in lane.waiting:
                lane.waiting.remove(waiter)
                self._tell_others()
            elif not waiter.place.cancelled() and waiter.place.exception() is None:
                # It was given at the very moment at which its waiter left.
                self._leave(waiter.tenant, Urgency.CALLER)
            raise

    async def _enter_patiently(self, tenant: Tenant, urgency: Urgency) -> None:
        patient = _waiter(tenant)
        self._patient[urgency].append(patient)
        self._hand_out()
        try:
            await patient.place
        except BaseException:
            if patient in self._patient[urgency]:
                self._patient[urgency].remove(patient)
                self._tell_others()
            # As in _wait: it was given at the very moment at which its waiter left.
            elif not patient.place.cancelled():
                self._leave(tenant, urgency)
            raise

    def _take(self, name: str, urgency: Urgency) -> None:
        self._lanes[name].searching += 1
        # Served now, hence last in turn.
        self._lanes.move_to_end(name)
        self.searching += 1
        if urgency is Urgency.BATCH:
            self._batches.begin()
        self.idle.clear()

    def _leave(self, tenant: Tenant, urgency: Urgency) -> None:
        lane = self._lanes[tenant.name]
        lane.searching -= 1
        if lane.granted is not None and lane.has_rivals:
            # Whose it is now, all controllers settle together.
            lane.granted = max(lane.searching, lane.granted - 1)
        self.searching -= 1
        if urgency is Urgency.BATCH:
            self._batches.end(_now())
        else:
            self._batches.other_ended(_now())
        self._hand_out()
        self._tell_others()
        if not self.searching:
            self.idle.set()

    def _tell_others(self) -> None:
        if self._shared is not None:
            self._shared.changed()

    def has(self, name: str) -> bool:
        """True while searches of a tenant run or wait here."""
        lane = self._lanes.get(name)
        if lane is not None and (lane.searching or lane.waiting or lane.at_the_door):
            return True
        return any(each.tenant.name == name for these in self._patient.values() for each in these)

    def report(self, name: str, *, is_shared: bool) -> tuple[int, list[tuple[int, float]]]:
        """The places that a tenant keeps here, and the urgency and the seconds of each search that
        waits for one more. What is granted and not needed is given back."""
        lane = self._lanes.get(name)
        if lane is None:
            return 0, []
        wants = self._wants(name, lane)
        kept = lane.searching
        if is_shared and lane.granted is not None:
            kept = lane.granted = max(kept, min(lane.granted, kept + len(wants)))
        return kept, wants[kept - lane.searching :]

    def _wants(self, name: str, lane: _Lane) -> list[tuple[int, float]]:
        """Searches that lack nothing but a place of their tenant, the next one first."""
        now = _now()
        wants = [(int(urgency), now - since) for urgency, since in lane.at_the_door]
        wants += [(int(Urgency.CALLER), now - each.since) for each in lane.waiting]
        for urgency, room in ((Urgency.BACKGROUND, None), (Urgency.BATCH, self._batch_room)):
            mine = (each for each in self._patient[urgency] if each.tenant.name == name)
            wants += [(int(urgency), now - each.since) for each in islice(mine, room)]
        # By urgency, then by who has waited longest.
        wants.sort(key=lambda want: (want[0], -want[1]))
        # A place that this process could not use would be kept from a controller that can.
        room_here = min(lane.limit - lane.searching, self._max_searches - self.searching)
        return wants[: max(0, room_here)]

    def grant(self, name: str, places: int, *, has_rivals: bool) -> None:
        """Give a tenant this number of the places that all controllers share."""
        if (lane := self._lanes.get(name)) is not None:
            lane.granted, lane.has_rivals = places, has_rivals
            self._hand_out()

    def count_alone(self) -> None:
        """Go by this controller's own searches alone."""
        for lane in self._lanes.values():
            lane.granted, lane.has_rivals = None, False
        self._hand_out()

    def _hand_out(self) -> None:
        """Give free places to those whose turn it is."""
        while self._has_room and (name := self._next()) is not None:
            waiter = self._lanes[name].waiting.popleft()
            # One that is done was cancelled, and its waiter is about to leave.
            if not waiter.place.done():
                waiter.place.set_result(None)
                self._take(name, Urgency.CALLER)
        while self._has_room and (patient := self._next_patient(Urgency.BACKGROUND)):
            self._admit(patient, Urgency.BACKGROUND)
        while self._has_room and self._has_room_for_batches():
            if (patient := self._next_patient(Urgency.BATCH)) is None:
                break
            self._admit(patient, Urgency.BATCH)

    def _admit(self, patient: _Waiter, urgency: Urgency) -> None:
        self._patient[urgency].remove(patient)
        if not patient.place.done():
            patient.place.set_result(None)
            self._take(patient.tenant.name, urgency)

    def _next_patient(self, urgency: Urgency) -> _Waiter | None:
        """The one that has waited longest, of those whose tenant is below its limit."""
        waiting = self._patient[urgency]
        return next((each for each in waiting if self._lane(each.tenant).has_room), None)

    def _has_room_for_batches(self) -> bool:
        """True if batches may take one more place; if only time is missing, look again then."""
        if not self._patient[Urgency.BATCH]:
            return False
        if self._batch_room:
            return True
        wait = self._batches.next_look(_now(), has_others=self._has_others)
        # One timer at a time: every change of the queue asks again.
        if self._next_look is not None:
            self._next_look.cancel()
        if wait is not None:
            self._next_look = asyncio.get_running_loop().call_later(wait, self._look_again)
        return False

    def _look_again(self) -> None:
        self._hand_out()
        self._tell_others()

    @property
    def _batch_room(self) -> int:
        return self._batches.room(_now(), has_others=self._has_others)

    @property
    def _has_others(self) -> bool:
        return self.searching > self._batches.searching

    def _next(self) -> str | None:
        lanes = self._lanes.items()
        return next((name for name, lane in lanes if lane.waiting and lane.has_room), None)

    def _push_out_for(self, lane: _Lane) -> None:
        """Make room in a full queue at the cost of the longest lane. Raises ApiError where this
        one would become as long."""
        longest = max(self._lanes.values(), key=lambda other: len(other.waiting))
        # Two: with one the lanes would only change places, and push each other out for ever.
        if len(longest.waiting) < len(lane.waiting) + 2:
            raise queue_full(self._retry_after(lane))
        newest = longest.waiting.pop().place
        if not newest.done():
            newest.set_exception(queue_full(self._retry_after(longest)))

    def _lane(self, tenant: Tenant) -> _Lane:
        limit = min(tenant.max_searches or self._max_searches, self._max_searches)
        if tenant.name not in self._lanes:
            self._lanes[tenant.name] = _Lane(limit)
            # A tenant that was never served goes first.
            self._lanes.move_to_end(tenant.name, last=False)
        lane = self._lanes[tenant.name]
        # The operator may have changed it meanwhile.
        lane.limit = limit
        return lane

    def _refuse_without_tokens(self, tenant: Tenant) -> None:
        if wait := self._meter.wait(tenant):
            raise out_of_tokens(wait)

    def _retry_after(self, lane: _Lane) -> int:
        """Return the seconds after which a refused request of this lane should come again."""
        # Staggered: refused requests come back one at a time, at the pace at which the lane's
        # searches end. Capped at `max_seconds`, since not all of them will come back.
        now = _now()
        waits = min(now + self._max_seconds, max(lane.promised, self._next_end(now)))
        lane.promised = waits + self._mean_seconds / self._share(lane, now)
        return max(1, math.ceil(min(lane.promised - now, self._max_seconds)))

    def _share(self, lane: _Lane, now: float) -> float:
        """The searches that a lane has in flight while it and others have more to do."""
        lanes = self._lanes.values()
        # Also refused ones with a Retry-After: they will be there by then.
        rivals = sum(1 for each in lanes if each.waiting or each.promised > now or each is lane)
        return min(lane.limit, self._max_searches / rivals)

    def _next_end(self, now: float) -> float:
        """Estimate the time at which the oldest search in flight ends."""
        begun = next(iter(self._begun.values()), now)
        return max(now, begun + self._mean_seconds)


def _waiter(tenant: Tenant) -> _Waiter:
    return _Waiter(tenant, asyncio.get_running_loop().create_future(), _now())


def _now() -> float:
    return asyncio.get_running_loop().time()
