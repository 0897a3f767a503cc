"""P(marker) of a branch, place by place."""

from dataclasses import replace
from math import inf, log

import pytest

from stepback_server.engine.base import Alternative, Finish, Sample
from stepback_server.search.tree import Branch, State
from tests.server.search.scripted import END, GRAMMAR, MARKER, NEWLINE

A, B = 10, 11


def branch(
    ids: tuple[int, ...],
    markers: dict[int, float],
    state: State = State(),  # noqa: B008
) -> Branch:
    """The engine names the marker at some places of the sample, with a probability."""
    others: list[tuple[Alternative, ...]] = [
        ((MARKER, log(markers[place])),) if place in markers else () for place in range(len(ids))
    ]
    sample = Sample(
        index=0,
        ids=ids,
        logprobs=(log(0.5),) * len(ids),
        finish=Finish.STOP,
        cached_tokens=0,
        alternatives=tuple(others),
    )
    return Branch.of(GRAMMAR, 0, state, sample)


def test_it_is_read_after_each_step_and_at_the_end() -> None:
    found = branch((A, NEWLINE, B, NEWLINE, END), {0: 0.9, 1: 0.9, 2: 0.1, 4: 0.3})
    assert found.p_marker_after_steps(GRAMMAR) == pytest.approx([0.1, 0.3])
    assert found.confidence(GRAMMAR) == pytest.approx(0.9 * 0.7)


def test_a_last_step_without_separator_ends_where_the_text_does() -> None:
    found = branch((A, NEWLINE, B, END), {2: 0.1, 3: 0.4})
    assert found.p_marker_after_steps(GRAMMAR) == pytest.approx([0.1, 0.4])


def test_a_marker_that_was_written_counts_with_its_own_probability() -> None:
    found = branch((A, NEWLINE, MARKER), {})
    assert found.p_marker_after_steps(GRAMMAR) == pytest.approx([0.5])


def test_a_marker_that_the_engine_does_not_name_counts_as_impossible() -> None:
    found = branch((A, NEWLINE, END), {})
    assert found.marker_logprobs == (-inf,) * 3
    assert found.p_marker_after_steps(GRAMMAR) == [0.0]
    assert found.confidence(GRAMMAR) == 1.0


def test_nothing_is_known_after_a_step_that_nothing_was_written_after() -> None:
    assert branch((A, NEWLINE), {}).p_marker_after_steps(GRAMMAR) == [None]


def test_a_continuation_keeps_what_was_known_of_its_prefix() -> None:
    parent = branch((A, NEWLINE, B, NEWLINE, END), {2: 0.1, 4: 0.3})
    turned = branch((NEWLINE, END), {1: 0.2}, parent.turn(2, A, log(0.2)))
    assert turned.ids == (A, NEWLINE, A, NEWLINE, END)
    assert turned.p_marker_after_steps(GRAMMAR) == pytest.approx([0.1, 0.2])
    kept = branch((A, NEWLINE, END), {0: 0.6, 2: 0.2}, parent.keep(2))
    assert kept.p_marker_after_steps(GRAMMAR) == pytest.approx([0.6, 0.2])


def test_a_kept_part_keeps_what_a_scorer_said_of_its_beginnings() -> None:
    first = replace(branch((A, NEWLINE, B, NEWLINE, END), {}), bonuses=((2, -1.0), (4, -2.0)))
    assert [first.bonus(length) for length in range(6)] == [0, 0, -1, -1, -2, -2]
    kept = first.keep(3)
    assert kept.bonuses == ((2, -1.0),)
    assert branch((A, END), {}, kept).bonus(5) == -1
    assert first.turn(1, B, -0.1).bonuses == ()
