"""A request that has passed every check."""

from dataclasses import dataclass

from stepback_core.schemas import Select, SolveRequest
from stepback_server.scorers.messages import Question
from stepback_server.scorers.scorer import Scorer
from stepback_server.search.loop import Limits
from stepback_server.search.ranking import Check
from stepback_server.search.strategy import StateView
from stepback_server.search.tree import State
from stepback_server.solve.isolated import IsolatedReview


@dataclass(frozen=True, slots=True)
class AcceptedRequest:
    """An accepted request: the prompt, the limits, and how to judge answers."""

    id: str
    """The search's own name."""
    request: SolveRequest
    prompt_ids: tuple[int, ...]
    root: State
    """The given steps."""
    check: Check | None
    """The task; None for a bare prompt."""
    scorer: Scorer | None
    question: Question
    """The problem in the form of a scorer's request."""
    view: StateView | None
    review: IsolatedReview | None
    """The verdicts of a plug-in's checker, which the search must await."""
    select: Select
    limits: Limits
    warning: str | None = None
