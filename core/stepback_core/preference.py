"""Order of a search's candidates under each rule of choice, for the server and for evaluations."""

from collections.abc import Callable

from stepback_core.schemas import Answer, Select

LEAST_DOUBT = 0.003
"""Answers with a `confidence` above 1 less this are ties under `marker`, which likelihood breaks.
Below it the smallest difference decides. Chosen on development problems of Countdown."""


def _liked(answer: Answer) -> float:
    """The scorer's score; without any it is worse than the worst."""
    return -1.0 if answer.scorer_score is None else answer.scorer_score


def _undoubted(answer: Answer) -> float:
    """The confidence, capped at 1 - LEAST_DOUBT."""
    return min(answer.confidence, 1 - LEAST_DOUBT)


def _passed(answer: Answer) -> int:
    """Accepted before unknown before refused."""
    # Unknown above refused: a checker that failed says nothing against an answer.
    return {True: 2, None: 1, False: 0}[answer.verified]


# Likelihood breaks every tie, so that the first answer does not depend on timing.
PREFERENCE: dict[Select, Callable[[Answer], tuple[float, ...]]] = {
    Select.PERPLEXITY: lambda answer: (answer.score,),
    Select.MARKER: lambda answer: (_undoubted(answer), answer.score),
    Select.WEIGHTED_VOTE: lambda answer: (answer.weight, answer.score),
    Select.VOTE: lambda answer: (answer.votes, answer.score),
    Select.VERIFIED: lambda answer: (_passed(answer), _liked(answer), answer.score),
    Select.SCORE: lambda answer: (_liked(answer), answer.score),
}
"""Key by which answers are ordered, the greatest first."""
