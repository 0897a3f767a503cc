"""Choice of the answer among the candidates. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stepback_core.preference import PREFERENCE
from stepback_core.schemas import Answer, Select
from stepback_core.tasks import Verdict
from stepback_server.search.tree import Branch


@dataclass(frozen=True, slots=True)
class Judgement:
    """Verdicts and scores of an answer."""

    verified: bool | None = None
    """The verdict; None without a checker, or if it failed."""
    lax: bool | None = None
    reason: str | None = None
    score: float | None = None
    """A scorer's, 0 to 1."""

    @classmethod
    def of_verdict(cls, verdict: Verdict) -> "Judgement":
        """Repeat a task's checker."""
        return cls(verdict.strict, verdict.lax, verdict.reason)


Check = Callable[[Sequence[str]], Verdict]
"""A task's checker, bound to the problem."""
Judge = Callable[[Sequence[str]], Judgement]
"""Gives what is known of an answer's steps, without waiting."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A distinct answer, and the likeliest of the branches that ended in it."""

    answer: Answer
    branch: Branch


def rank(
    answers: Sequence[Branch],
    select: Select,
    steps_of: Callable[[Branch], list[str]],
    separator: str,
    judge: Judge,
    confidence_of: Callable[[Branch], float] = lambda branch: 1.0,
) -> list[Candidate]:
    """The distinct answers, best first. Equal steps are one answer with several votes."""
    # By steps, not by text: two spellings of the same steps are one answer. A dict keeps the order
    # of asking, which breaks ties, as sorted() is stable.
    groups: dict[tuple[str, ...], list[Branch]] = {}
    for branch in answers:
        groups.setdefault(tuple(steps_of(branch)), []).append(branch)
    found = [
        _candidate(list(steps), group, separator, judge, [confidence_of(each) for each in group])
        for steps, group in groups.items()
    ]
    prefer = PREFERENCE[select]
    return sorted(found, key=lambda candidate: prefer(candidate.answer), reverse=True)


def _candidate(
    steps: list[str],
    group: list[Branch],
    separator: str,
    judge: Judge,
    confidences: list[float],
) -> Candidate:
    judgement = judge(steps)
    # The answer's score and branch are its likeliest writing's; votes count all of them.
    best = max(group, key=_score)
    answer = Answer(
        text=separator.join(steps),
        steps=steps,
        score=_score(best),
        verified=judgement.verified,
        lax=judgement.lax,
        reason=judgement.reason,
        scorer_score=judgement.score,
        votes=len(group),
        confidence=max(confidences),
        weight=sum(confidences),
    )
    return Candidate(answer, best)


def _score(branch: Branch) -> float:
    # A branch that ended has at least its end token, and so a score.
    assert branch.score is not None
    return branch.score
