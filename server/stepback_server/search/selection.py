"""Which candidate is the answer. Pure."""

from collections.abc import Callable, Sequence

from stepback_core.tasks import Verdict
from stepback_core.wire import Answer, Select
from stepback_server.search.tree import Branch

Judge = Callable[[Sequence[str]], Verdict]
"""The task's checker, bound to the problem."""


def rank(
    answers: Sequence[Branch],
    select: Select,
    steps_of: Callable[[Branch], list[str]],
    separator: str,
    judge: Judge | None,
) -> list[Answer]:
    """The distinct answers, best first. Equal steps are one answer with several votes."""
    groups: dict[tuple[str, ...], list[Branch]] = {}
    for branch in answers:
        groups.setdefault(tuple(steps_of(branch)), []).append(branch)
    ranked = [_answer(list(steps), group, separator, judge) for steps, group in groups.items()]
    return sorted(ranked, key=_PREFERENCE[select], reverse=True)


def _answer(steps: list[str], group: list[Branch], separator: str, judge: Judge | None) -> Answer:
    verdict = judge(steps) if judge else None
    return Answer(
        text=separator.join(steps),
        steps=steps,
        score=max(branch.score or 0.0 for branch in group),
        verified=verdict.strict if verdict else None,
        lax=verdict.lax if verdict else None,
        reason=verdict.reason if verdict else None,
        votes=len(group),
    )


_PREFERENCE: dict[Select, Callable[[Answer], tuple[float, ...]]] = {
    Select.PERPLEXITY: lambda answer: (answer.score,),
    Select.VOTE: lambda answer: (answer.votes, answer.score),
    Select.VERIFIED: lambda answer: (answer.verified is True, answer.score),
}
