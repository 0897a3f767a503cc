"""Scores of one result under each rule of choosing. Pure.

A search that comes back with all of its candidates is judged by several rules at once. The judge is
this package's own checker, not the controller's word.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict

from stepback_core.preference import PREFERENCE
from stepback_core.schemas import Answer, Select, SolveResult, StopReason
from stepback_core.tasks import Checker, Reason


class Rule(StrEnum):
    """Rule that chooses the answer among the candidates of one search."""

    PERPLEXITY = "perplexity"
    """The likeliest a token: the paper's own rule."""
    VOTE = "vote"
    """The answer that most samples agree on, its likeliest candidate."""
    MARKER = "marker"
    """The one whose steps the model is least likely to take back."""
    WEIGHTED_VOTE = "weighted_vote"
    """A vote weighted by that."""
    LEGAL = "legal"
    """The likeliest of those whose every step is legal; the target is not looked at."""
    VERIFIED = "verified"
    """The first that the checker accepts; it ended the search."""


CHOICES = (Select.PERPLEXITY, Select.VOTE, Select.MARKER, Select.WEIGHTED_VOTE)
"""The controller's rules that need nothing but the candidates, each with its rule here."""


class Failure(StrEnum):
    """Reason why there was nothing to judge; an answer that was refused has the checker's
    `Reason`."""

    NO_ANSWER = "no_answer"
    """Every branch was given up, by the marker or by its length."""
    NO_LEGAL_ANSWER = "no_legal_answer"
    TOKEN_BUDGET = "token_budget"
    DEADLINE = "deadline"


class _OutcomeModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Choice(_OutcomeModel):
    """The choice of a rule, judged."""

    strict: bool
    lax: bool
    """The paper's checker. It is no weaker on Countdown: it takes every copy of a used number."""
    failure: Failure | str | None
    """Reason of the strict refusal; None if it accepted."""
    claims: bool
    """True if the answer says that it reaches the goal."""


class ProblemOutcome(_OutcomeModel):
    """One problem under one setting."""

    choices: dict[Rule, Choice]
    any_strict: bool
    """True if any candidate is right: pass@N where the checker did not end the search."""
    any_lax: bool
    answers: int
    """Samples that ended in an answer, of those that came back."""
    distinct: int
    stop_reason: StopReason
    tokens: int
    """Generated, those of discarded branches included."""
    requests: int
    """Samples requested from the engine."""
    backtracks: int
    cached: int
    seconds: float
    """Seconds of searching, as the controller reports; its queue excluded."""
    queued: float


def outcome_of(
    result: SolveResult, rules: Sequence[Rule], checker: Checker[Any], problem: BaseModel
) -> ProblemOutcome:
    """Judge a search that came to its end."""
    verified_alone = list(rules) == [Rule.VERIFIED]
    found = result.candidates
    if verified_alone:
        found = [result.answer] if result.answer else []
    verdicts = [checker.check(problem, answer.steps) for answer in found]
    return ProblemOutcome(
        choices={
            rule: _choose(rule, found, checker, problem, result.stop_reason) for rule in rules
        },
        any_strict=any(verdict.strict for verdict in verdicts),
        any_lax=any(verdict.lax for verdict in verdicts),
        answers=sum(answer.votes for answer in found),
        distinct=len(found),
        stop_reason=result.stop_reason,
        tokens=result.usage.generated_tokens,
        requests=result.usage.engine_requests,
        backtracks=result.usage.backtracks,
        cached=result.usage.cached_tokens,
        seconds=round(result.usage.seconds_searching, 4),
        queued=round(result.usage.seconds_queued, 4),
    )


def _choose(
    rule: Rule, found: Sequence[Answer], checker: Checker[Any], problem: BaseModel, stop: StopReason
) -> Choice:
    legal = [a for a in found if _is_legal(checker, problem, a)] if rule is Rule.LEGAL else found
    chosen = max(legal, key=_PREFERENCE[rule], default=None)
    if chosen is None:
        none = _nothing(stop) if not found else Failure.NO_LEGAL_ANSWER
        return Choice(strict=False, lax=False, failure=none, claims=False)
    verdict = checker.check(problem, chosen.steps)
    return Choice(
        # A verdict that could not be had is none in favour.
        strict=bool(verdict.strict),
        lax=bool(verdict.lax),
        failure=verdict.reason,
        claims=checker.claims_goal(problem, chosen.steps),
    )


def _is_legal(checker: Checker[Any], problem: BaseModel, answer: Answer) -> bool:
    """Tell whether the question allows every step, wherever they lead."""
    return checker.check(problem, answer.steps).reason in (None, Reason.NOT_REACHED)


def _nothing(stop: StopReason) -> Failure:
    """Tell why a search ended without any answer."""
    by_limit = {
        StopReason.TOKEN_BUDGET: Failure.TOKEN_BUDGET,
        StopReason.DEADLINE: Failure.DEADLINE,
    }
    return by_limit.get(stop, Failure.NO_ANSWER)


# Ties go to the first in the controller's own order, as they do there. With `verified` that order
# is the rule: it is the controller's verdicts that ended the search.
_PREFERENCE: dict[Rule, Callable[[Answer], tuple[float, ...]]] = {
    **{Rule(each.value): PREFERENCE[each] for each in CHOICES},
    Rule.LEGAL: PREFERENCE[Select.PERPLEXITY],
    Rule.VERIFIED: lambda answer: (0.0,),
}
