"""Statistics over many outcomes of one setting. Pure."""

from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from stepback_core.schemas import StopReason
from stepback_training.evaluate.plan import Setting
from stepback_training.evaluate.scoring import ProblemOutcome, Rule
from stepback_training.generators import Split
from stepback_training.sampling.statistics import Share, Spread


class _SummaryModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Accuracy(_SummaryModel):
    """Shares of right answers by the strict checker, and by the paper's."""

    strict: Share
    lax: Share


class Failures(_SummaryModel):
    """Choices of one rule that the strict checker refused."""

    kinds: dict[str, int]
    """Number of each kind, the commonest first: the checker's reason, or why there was nothing
    to choose."""
    claimed: int
    """Number of them that said that they reach the goal."""


class Row(_SummaryModel):
    """One setting on the problems of one split."""

    name: str
    setting: Setting
    split: Split
    problems: int
    accuracy: dict[Rule, Accuracy]
    """Accuracy by the rule that chooses the answer."""
    pass_at_n: Accuracy | None
    """Share of problems with any right candidate; None if the checker ended the search."""
    failures: dict[Rule, Failures]
    stop_reasons: dict[StopReason, int]
    tokens: Spread
    """Generated tokens a problem, those of discarded branches included."""
    requests: Spread
    """Samples requested from the engine, a problem."""
    seconds: Spread
    """Seconds of searching a problem, with the other searches in flight."""
    backtracks: Spread
    equal_tokens: str | None = None
    """The setting of best-of-N that generates as much."""

    @classmethod
    def of(
        cls, setting: Setting, split: Split, outcomes: Sequence[ProblemOutcome], equal: str | None
    ) -> "Row":
        """Raises ValueError for no outcome at all."""
        return cls(
            name=setting.name,
            setting=setting,
            split=split,
            problems=len(outcomes),
            accuracy={rule: _accuracy(rule, outcomes) for rule in setting.rules},
            pass_at_n=None if setting.until_verified else _pass_at_n(outcomes),
            failures={rule: _failures(rule, outcomes) for rule in setting.rules},
            stop_reasons=dict(Counter(outcome.stop_reason for outcome in outcomes).most_common()),
            tokens=Spread.over([outcome.tokens for outcome in outcomes]),
            requests=Spread.over([outcome.requests for outcome in outcomes]),
            seconds=Spread.over([outcome.seconds for outcome in outcomes]),
            backtracks=Spread.over([outcome.backtracks for outcome in outcomes]),
            equal_tokens=equal,
        )


def _accuracy(rule: Rule, outcomes: Sequence[ProblemOutcome]) -> Accuracy:
    return Accuracy(
        strict=Share.count([outcome.choices[rule].strict for outcome in outcomes]),
        lax=Share.count([outcome.choices[rule].lax for outcome in outcomes]),
    )


def _pass_at_n(outcomes: Sequence[ProblemOutcome]) -> Accuracy:
    return Accuracy(
        strict=Share.count([outcome.any_strict for outcome in outcomes]),
        lax=Share.count([outcome.any_lax for outcome in outcomes]),
    )


def _failures(rule: Rule, outcomes: Sequence[ProblemOutcome]) -> Failures:
    failed = [outcome.choices[rule] for outcome in outcomes if not outcome.choices[rule].strict]
    kinds = Counter(str(choice.failure) for choice in failed if choice.failure)
    return Failures(
        kinds=dict(kinds.most_common()), claimed=sum(choice.claims for choice in failed)
    )
