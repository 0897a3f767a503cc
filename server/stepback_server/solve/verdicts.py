"""Verdicts on the answers of one search: those known at once, and those that take time."""

from collections.abc import Sequence
from dataclasses import replace

from stepback_core.trace import TraceCodec
from stepback_server.scorers.messages import Opinion
from stepback_server.search.appraisal import Appraise
from stepback_server.search.ranking import Check, Judgement
from stepback_server.solve.order import AcceptedRequest
from stepback_server.solve.scoring import Scoring, ScoringCost

_FAILED = "scorer_failed"
_REFUSED = "scorer_refused"


class Verdicts:
    """Verdicts and scores of one search's answers.

    The search awaits `appraise` with new branches before it records them. After that `of` knows
    their answers, so that strategy, ranking and events read it without waiting.
    """

    def __init__(
        self, check: Check | None, scoring: Scoring | None, cost: ScoringCost | None = None
    ) -> None:
        self._check = check
        self._scoring = scoring
        self.cost = cost or ScoringCost()

    @classmethod
    def of_order(cls, order: AcceptedRequest, codec: TraceCodec) -> "Verdicts":
        """Return the verdicts of a search that is about to begin."""
        cost = ScoringCost()
        scoring = order.scorer and Scoring(order.scorer, order.question, codec, cost)
        return cls(order.check, scoring, cost)

    @property
    def appraise(self) -> Appraise | None:
        """The appraisal that the search awaits; None if every verdict is immediate."""
        return self._scoring.appraise if self._scoring else None

    @property
    def are_lost(self) -> bool:
        """True once no answer can be verified any more, since the scorer that decides is dead."""
        return (
            self._scoring is not None
            and self._scoring.scorer.entry.decides
            and self._scoring.is_lost
        )

    def of(self, steps: Sequence[str]) -> Judgement:
        """The judgement of an answer, as far as it is known by now."""
        checked = Judgement.of_verdict(self._check(steps)) if self._check else Judgement()
        if self._scoring is None:
            return checked
        opinion, decides = self._scoring.of(steps), self._scoring.scorer.entry.decides
        return with_opinion(checked, opinion, decides=decides)


def with_opinion(checked: Judgement, opinion: Opinion | None, *, decides: bool) -> Judgement:
    """Add a scorer's opinion to what a task says: an answer must pass both.

    One that a deciding scorer has said nothing of is unverified, whatever the task says.
    """
    score = opinion and opinion.score
    scored = replace(checked, score=score)
    # The task's checker refuses, or has failed: a scorer cannot make up for either.
    if checked.verified is False or checked.reason is not None:
        return scored
    if opinion is None:
        return replace(scored, verified=None, reason=_FAILED) if decides else scored
    if opinion.ok is None:
        return scored
    reason = opinion.reason if opinion.ok else opinion.reason or _REFUSED
    return replace(scored, verified=opinion.ok, reason=reason)
