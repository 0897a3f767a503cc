"""Verdicts on the answers of one search: those known at once, and those that take time."""

from collections.abc import Callable, Sequence

from stepback_core.tasks import Verdict
from stepback_server.search.loop import Appraise
from stepback_server.search.ranking import Judgement

Check = Callable[[Sequence[str]], Verdict]
"""A task's checker, bound to the problem."""


class Verdicts:
    """Verdicts and scores of one search's answers.

    The search awaits `appraise` with new branches before it records them. After that `of` knows
    their answers, so that strategy, ranking and events read it without waiting.
    """

    def __init__(self, check: Check | None) -> None:
        self._check = check

    @property
    def appraise(self) -> Appraise | None:
        """The appraisal that the search awaits; None if every verdict is immediate."""
        return None

    def of(self, steps: Sequence[str]) -> Judgement:
        """The judgement of an answer, as far as it is known by now."""
        return Judgement.of_verdict(self._check(steps)) if self._check else Judgement()
