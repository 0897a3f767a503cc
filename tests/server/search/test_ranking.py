"""Ranking candidates."""

import pytest

from stepback_core.schemas import Outcome, Select
from stepback_core.tasks import Reason
from stepback_server.engine.base import Finish, Sample
from stepback_server.search.ranking import Judgement, rank
from stepback_server.search.tree import Branch, State


def branch(number: int, step: int, logprob: float) -> Branch:
    sample = Sample(index=0, ids=(step,), logprobs=(logprob,), finish=Finish.STOP, cached_tokens=0)
    return Branch(number, State(), sample, Outcome.ANSWER)


LIKELY, AGREED, RIGHT = 1, 2, 3
BRANCHES = [
    branch(0, LIKELY, -0.1),
    branch(1, AGREED, -0.5),
    branch(2, AGREED, -0.5),
    branch(3, RIGHT, -0.9),
]


def judge(steps: object) -> Judgement:
    right = steps == [str(RIGHT)]
    return Judgement(right, right, None if right else Reason.NOT_REACHED)


def unknown(steps: object) -> Judgement:
    return Judgement()


def order(select: Select) -> list[int]:
    sure = {LIKELY: 0.1, AGREED: 0.4, RIGHT: 0.5}
    ranked = rank(
        BRANCHES, select, lambda b: [str(b.ids[0])], "\n", judge, lambda b: sure[b.ids[0]]
    )
    return [int(candidate.answer.steps[0]) for candidate in ranked]


def test_each_selection_prefers_its_own() -> None:
    assert order(Select.PERPLEXITY) == [LIKELY, AGREED, RIGHT]
    assert order(Select.MARKER) == [RIGHT, AGREED, LIKELY]
    assert order(Select.WEIGHTED_VOTE) == [AGREED, RIGHT, LIKELY]
    assert order(Select.VOTE) == [AGREED, LIKELY, RIGHT]
    assert order(Select.VERIFIED) == [RIGHT, LIKELY, AGREED]


def test_a_scorers_word_orders_what_it_knows_before_what_it_does_not() -> None:
    scores = {LIKELY: None, AGREED: 0.2, RIGHT: 0.7}

    def scored(steps: object) -> Judgement:
        assert isinstance(steps, list)
        return Judgement(score=scores[int(steps[0])])

    for select in (Select.SCORE, Select.VERIFIED):
        ranked = rank(BRANCHES, select, lambda b: [str(b.ids[0])], "\n", scored)
        assert [each.answer.scorer_score for each in ranked] == [0.7, 0.2, None]


def test_an_unknown_verdict_comes_between_acceptance_and_refusal() -> None:
    verdicts = {LIKELY: False, AGREED: None, RIGHT: True}

    def judged(steps: object) -> Judgement:
        assert isinstance(steps, list)
        return Judgement(verdicts[int(steps[0])])

    ranked = rank(BRANCHES, Select.VERIFIED, lambda b: [str(b.ids[0])], "\n", judged)
    assert [each.answer.verified for each in ranked] == [True, None, False]


def test_equal_answers_are_one_with_votes() -> None:
    ranked = rank(BRANCHES, Select.VOTE, lambda b: [str(b.ids[0])], "\n", unknown)
    assert [candidate.answer.votes for candidate in ranked] == [2, 1, 1]
    assert ranked[0].answer.verified is None
    assert ranked[0].branch in BRANCHES[1:3]


def test_equal_answers_have_the_best_confidence_and_the_sum_of_them() -> None:
    confidences = {0: 0.5, 1: 0.25, 2: 0.75, 3: 1.0}
    ranked = rank(
        BRANCHES,
        Select.WEIGHTED_VOTE,
        lambda b: [str(b.ids[0])],
        "\n",
        unknown,
        lambda b: confidences[b.number],
    )
    agreed = next(each.answer for each in ranked if each.answer.steps == [str(AGREED)])
    assert (agreed.confidence, agreed.weight, agreed.votes) == (0.75, 1.0, 2)


@pytest.mark.parametrize(
    ("doubts", "first"),
    [
        ({LIKELY: 0.0029, AGREED: 0.0, RIGHT: 1e-9}, LIKELY),
        ({LIKELY: 0.0031, AGREED: 0.001, RIGHT: 0.0}, AGREED),
    ],
)
def test_a_doubt_too_small_to_count_leaves_the_choice_to_likelihood(
    doubts: dict[int, float], first: int
) -> None:
    ranked = rank(
        BRANCHES,
        Select.MARKER,
        lambda b: [str(b.ids[0])],
        "\n",
        unknown,
        lambda b: 1 - doubts[b.ids[0]],
    )
    assert ranked[0].branch.ids[0] == first
