"""Rows of the tables: what was asked, which rules chose right, and what it cost."""

from collections.abc import Callable
from dataclasses import dataclass, field

from stepback_core.preference import PREFERENCE
from stepback_core.schemas import Answer, Select

RULES: dict[str, Callable[[Answer], tuple[float, ...]]] = {
    select.value: PREFERENCE[select]
    for select in (Select.PERPLEXITY, Select.VOTE, Select.MARKER, Select.WEIGHTED_VOTE)
}
"""Rules that choose an answer among all candidates of one search."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One problem under one request: which rules end in a right answer, and what it cost."""

    right: dict[str, bool]
    generated: int
    prompted: int
    """Tokens of all prompts that the engine was asked to continue."""
    cached: int
    requests: int
    p_marker: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    """P(marker) after right steps ("right") and after each kind of first wrong step, where the
    solver looks for it."""

    @property
    def forwarded(self) -> int:
        """Tokens that went through the model: prompts that were not cached, and generated ones."""
        return self.prompted - self.cached + self.generated


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of request on one kind of problems, in their order."""

    name: str
    kind: str
    asked: list[Asked]
    budget: int | None = None
    """Generated tokens for each problem, where they are limited."""

    def right(self, rule: str) -> list[bool]:
        return [each.right[rule] for each in self.asked]

    def mean(self, what: str) -> float:
        return sum(getattr(each, what) for each in self.asked) / len(self.asked)
