"""One result under each rule, on candidates whose worth is known."""

import pytest

from stepback_core.schemas import StopReason
from stepback_core.tasks import Reason
from stepback_training.evaluate.scoring import Failure, Rule, outcome_of
from stepback_training.evaluate.summary import Row
from tests.training.evaluate.made import (
    ILLEGAL,
    LEGAL,
    PROBLEM,
    RIGHT,
    TASK,
    WRONG_SUM,
    Setting,
    Split,
    Strategy,
    answer,
    result,
)

ALL = (Rule.PERPLEXITY, Rule.VOTE, Rule.LEGAL)


def test_each_rule_chooses_its_own_candidate() -> None:
    made = result(answer(ILLEGAL, -0.1), answer(RIGHT, -0.2), answer(LEGAL, -0.3, votes=5))
    outcome = outcome_of(made, ALL, TASK.checker, PROBLEM)
    chosen = outcome.choices
    assert chosen[Rule.PERPLEXITY].failure == Reason.UNAVAILABLE_OPERAND
    assert chosen[Rule.PERPLEXITY].claims
    assert chosen[Rule.LEGAL].strict and chosen[Rule.LEGAL].failure is None
    assert chosen[Rule.VOTE].failure == Reason.NOT_REACHED and not chosen[Rule.VOTE].claims
    assert outcome.any_strict
    assert (outcome.answers, outcome.distinct) == (7, 3)
    assert (outcome.tokens, outcome.requests, outcome.seconds) == (100, 3, 0.25)


def test_a_vote_that_is_tied_goes_to_the_likelier() -> None:
    made = result(answer(RIGHT, -0.2, votes=2), answer(LEGAL, -0.3, votes=2))
    assert outcome_of(made, ALL, TASK.checker, PROBLEM).choices[Rule.VOTE].strict


def test_lax_is_judged_beside_strict() -> None:
    unused_input = ["82+13=95"]
    kept = ["82-25=57", "16*4=64", "64+57=121"]
    floored = ["25/4=6", "82+16=98", "98-6=92"]
    assert not outcome_of(result(answer(floored, -1)), ALL, TASK.checker, PROBLEM).any_lax
    problem = PROBLEM.model_copy(update={"target": 92})
    outcome = outcome_of(result(answer(floored, -1)), ALL, TASK.checker, problem)
    assert outcome.any_lax and not outcome.any_strict
    assert outcome.choices[Rule.PERPLEXITY].lax
    assert not outcome_of(result(answer(unused_input, -1)), ALL, TASK.checker, PROBLEM).any_lax
    assert not outcome_of(result(answer(kept, -1)), ALL, TASK.checker, PROBLEM).any_strict


@pytest.mark.parametrize(
    ("stop", "failure"),
    [
        (StopReason.EXHAUSTED, Failure.NO_ANSWER),
        (StopReason.TOKEN_BUDGET, Failure.TOKEN_BUDGET),
        (StopReason.DEADLINE, Failure.DEADLINE),
    ],
)
def test_why_there_was_no_answer(stop: StopReason, failure: Failure) -> None:
    outcome = outcome_of(result(stop=stop), ALL, TASK.checker, PROBLEM)
    assert {choice.failure for choice in outcome.choices.values()} == {failure}
    assert not outcome.any_strict


def test_no_legal_answer_is_told_from_no_answer() -> None:
    outcome = outcome_of(result(answer(WRONG_SUM, -0.1)), ALL, TASK.checker, PROBLEM)
    assert outcome.choices[Rule.LEGAL].failure == Failure.NO_LEGAL_ANSWER
    assert outcome.choices[Rule.PERPLEXITY].failure == Reason.WRONG_ARITHMETIC


def test_until_verified_judges_what_ended_the_search() -> None:
    made = result(answer(RIGHT, -0.4), answer(LEGAL, -0.1), stop=StopReason.SOLVED)
    outcome = outcome_of(made, (Rule.VERIFIED,), TASK.checker, PROBLEM)
    assert outcome.choices[Rule.VERIFIED].strict and outcome.distinct == 1


def test_a_row_counts() -> None:
    setting = Setting(strategy=Strategy.BEST_OF_N, breadth=2)
    outcomes = [
        outcome_of(each, setting.rules, TASK.checker, PROBLEM)
        for each in (
            result(answer(RIGHT, -0.1), tokens=10),
            result(answer(ILLEGAL, -0.1), answer(RIGHT, -0.2), tokens=20),
            result(answer(WRONG_SUM, -0.1), tokens=30),
            result(stop=StopReason.TOKEN_BUDGET, tokens=1000),
        )
    ]
    row = Row.of(setting, Split.TEST_SEEN, outcomes, None)
    assert row.accuracy[Rule.PERPLEXITY].strict.hits == 1
    assert row.accuracy[Rule.LEGAL].strict.hits == 2
    assert row.pass_at_n and row.pass_at_n.strict.percent == 50
    failures = row.failures[Rule.PERPLEXITY]
    assert failures.kinds == {"unavailable_operand": 1, "wrong_arithmetic": 1, "token_budget": 1}
    assert failures.claimed == 2
    assert row.stop_reasons == {"exhausted": 3, "token_budget": 1}
    assert (row.tokens.mean, row.tokens.p50) == (265, 25)
    assert 970 < row.tokens.p99 < 1000
