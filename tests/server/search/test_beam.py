"""Stochastic beam search, on a model that is written down."""

from collections import Counter
from collections.abc import Mapping
from math import log
from random import Random

import pytest

from stepback_server.engine.base import Finish, Sample
from stepback_server.search.beam import Beam
from stepback_server.search.strategy import Expansion
from stepback_server.search.tree import Branch, State
from tests.server.search.scripted import END, GRAMMAR, MARKER, NEWLINE
from tests.server.search.toy_model import Table

A, B, C = 10, 11, 12
TABLE: Table = {
    (): {A: 0.6, B: 0.3, C: 0.1},
    (A,): {END: 0.5, MARKER: 0.3, NEWLINE: 0.2},
    (A, NEWLINE): {END: 0.9, B: 0.1},
    (B,): {END: 0.75, MARKER: 0.25},
}
"""Texts that are not listed end at once."""
TEXTS = {
    (A, END): 0.3,
    (A, MARKER): 0.18,
    (A, NEWLINE, END): 0.108,
    (A, NEWLINE, B, END): 0.012,
    (B, END): 0.225,
    (B, MARKER): 0.075,
    (C, END): 0.1,
}


class Sampler:
    """An engine that samples from the table at a temperature, and names every other token."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def __call__(self, number: int, expansion: Expansion) -> Branch:
        ids: list[int] = []
        logprobs: list[float] = []
        others: list[tuple[tuple[int, float], ...]] = []
        text = expansion.state.ids
        while not (text and text[-1] in GRAMMAR.stop_ids):
            following = TABLE.get(text, {END: 1.0})
            token = self._draw(following, expansion.temperature)
            ids.append(token)
            logprobs.append(log(following[token]))
            rest = {each: share for each, share in following.items() if each != token}
            others.append(tuple((each, log(share)) for each, share in rest.items()))
            text = (*text, token)
        sample = Sample(
            index=0,
            ids=tuple(ids),
            logprobs=tuple(logprobs),
            finish=Finish.STOP,
            cached_tokens=0,
            alternatives=tuple(others),
        )
        return Branch.of(GRAMMAR, number, expansion.state, sample)

    def _draw(self, following: Mapping[int, float], temperature: float) -> int:
        if temperature == 0:
            return max(following, key=lambda token: following[token])
        weights = [share ** (1 / temperature) for share in following.values()]
        return self._random.choices(list(following), weights)[0]


def texts(seed: int, n: int, temperature: float = 1.0, most: int = 20) -> list[tuple[int, ...]]:
    """The texts of one beam, in the order in which they were drawn."""
    sample = Sampler(seed)
    beam = Beam(State(), n, temperature, GRAMMAR, max_tokens=most, random=Random(-1 - seed))
    found: list[tuple[int, ...]] = []
    waiting = beam.pick()
    while waiting:
        branch = sample(len(found), waiting.pop(0))
        found.append(beam.record(branch).ids)
        waiting += beam.pick()
    return found


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0, 2.0])
def test_no_text_comes_twice_and_every_text_comes(temperature: float) -> None:
    for seed in range(50):
        found = texts(seed, 7, temperature)
        assert sorted(found) == sorted(TEXTS)


def test_it_ends_where_there_are_fewer_texts_than_asked_for() -> None:
    assert len(texts(0, 16)) == len(TEXTS)


def test_a_greedy_beam_has_the_likeliest_texts_in_their_order() -> None:
    assert texts(0, 4, 0.0) == sorted(TEXTS, key=lambda text: -TEXTS[text])[:4]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.5])
def test_two_texts_are_a_sample_without_replacement(temperature: float) -> None:
    """The second is as likely as it is among all but the first: within four standard errors."""
    draws = 3000
    pairs = Counter(tuple(texts(seed, 2, temperature)) for seed in range(draws))
    shares = _at(temperature)
    for (first, second), count in pairs.items():
        expected = shares[first] * shares[second] / (1 - shares[first])
        assert abs(count / draws - expected) < 4 * (expected / draws) ** 0.5 + 1 / draws


def _at(temperature: float) -> dict[tuple[int, ...], float]:
    """The texts' probabilities at a temperature."""
    found: dict[tuple[int, ...], float] = {}
    for text in TEXTS:
        share = 1.0
        for length in range(len(text)):
            following = TABLE.get(text[:length], {END: 1.0})
            power = {token: each ** (1 / temperature) for token, each in following.items()}
            share *= power[text[length]] / sum(power.values())
        found[text] = share
    return found


def test_what_has_no_room_left_is_not_continued() -> None:
    sample = Sampler(0)
    beam = Beam(State(), 7, 0.0, GRAMMAR, max_tokens=1, random=Random(0))
    [first] = beam.pick()
    beam.record(sample(0, first))
    states = [expansion.state.ids for _ in range(9) for expansion in beam.pick()]
    assert states == [(A, MARKER)]


def test_as_many_are_in_flight_as_have_ended() -> None:
    sample = Sampler(3)
    beam = Beam(State(), 7, 1.0, GRAMMAR, max_tokens=20, random=Random(3))
    waves: list[int] = []
    number = 0
    while wave := beam.pick():
        waves.append(len(wave))
        for expansion in wave:
            beam.record(sample(number, expansion))
            number += 1
    assert waves[:3] == [1, 1, 2]
    assert sum(waves) == 7
