"""Shares that controllers take of one key, report by report."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from stepback_server.gateway.shared.settlement import KeyState, Report, Settled, settle

LEASE = 15.0
EMPTY = KeyState(None, 0.0, {})
CALLER, BATCH = 0, 2


def report(
    owner: str, held: int = 0, *waited: float, urgency: int = CALLER, spent: int = 0
) -> Report:
    wants = [(urgency, seconds) for seconds in waited]
    return Report(owner, "key", 3, 600, held, wants, spent)


def after(state: KeyState, now: float, first: Report, *others: Report) -> Settled:
    settled = settle(state, first, now, LEASE)
    for each in others:
        settled = settle(settled.state, each, now, LEASE)
    return settled


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 4), st.integers(0, 3), st.booleans()),
        max_size=30,
    )
)
def test_the_places_of_all_controllers_never_exceed_the_limit(
    steps: list[tuple[str, int, int, bool]],
) -> None:
    state, held, now = EMPTY, dict.fromkeys("abc", 0), 0.0
    for owner, wants, ended, _ in steps:
        now += 1
        held[owner] -= min(held[owner], ended)
        waited = [float(second) for second in range(wants)]
        settled = settle(state, report(owner, held[owner], *waited), now, lease=1000)
        state, held[owner] = settled.state, settled.held
        assert sum(held.values()) <= 3
        assert {o: claim.held for o, claim in state.claims.items() if claim.held} == {
            o: count for o, count in held.items() if count
        }


def test_who_has_waited_longest_is_next_wherever_it_waits() -> None:
    full = after(EMPTY, 0.0, report("a", 0, 5, 5, 5))
    assert full.held == 3
    waits = settle(full.state, report("b", 0, 2), 1.0, LEASE)
    assert (waits.held, waits.others_should_look) == (0, True)
    # One of a's has ended, and one that came to it later wants the place.
    later = settle(waits.state, report("a", 2, 1), 2.0, LEASE)
    assert (later.held, later.has_rivals, later.others_should_look) == (2, True, True)
    assert settle(later.state, report("b", 0, 3), 2.1, LEASE).held == 1


def test_a_batch_waits_for_callers_elsewhere() -> None:
    full = after(EMPTY, 0.0, report("a", 0, 1, 1, 1), report("b", 0, 0.1))
    freed = settle(full.state, report("a", 2, 60, urgency=BATCH), 1.0, LEASE)
    assert freed.held == 2


def test_a_silent_controller_has_nothing() -> None:
    full = after(EMPTY, 0.0, report("a", 0, 1, 1, 1))
    assert settle(full.state, report("b", 0, 1), LEASE - 1, LEASE).held == 0
    freed = settle(full.state, report("b", 0, 1), LEASE + 1, LEASE)
    assert freed.held == 1 and freed.state.claims.keys() == {"b"}


def test_a_controller_that_is_done_leaves_no_trace() -> None:
    begun = after(EMPTY, 0.0, report("a", 0, 1))
    assert settle(begun.state, report("a"), 1.0, LEASE).state.claims == {}


def test_one_bucket_is_filled_by_time_and_emptied_by_all() -> None:
    spent = after(EMPTY, 0.0, report("a", spent=500), report("b", spent=200))
    assert spent.tokens == -100
    assert settle(spent.state, report("a"), 20.0, LEASE).tokens == 100
    assert settle(spent.state, report("a"), 2000.0, LEASE).tokens == 600


def test_a_key_without_a_limit_of_searches_has_every_place() -> None:
    free = replace(report("a", 7, 1, 1), max_searches=None)
    assert settle(EMPTY, free, 0.0, LEASE).held == 9
