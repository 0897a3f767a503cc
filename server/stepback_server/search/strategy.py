"""Interface of a search strategy. Pure: it sees samples, never an engine.

A strategy *picks* expansions, and *records* the branches that come of them. It is asked again after
every branch; a search is over when a strategy picks nothing and nothing is in flight. Samples are
numbered from 0 as they are picked, and a branch has the number of its sample.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from stepback_server.search.tree import Branch, State


@dataclass(frozen=True, slots=True)
class Expansion:
    """Sample `n` continuations of a state."""

    state: State
    n: int
    temperature: float
    # Measured in docs/search.md: two are 7 to 8 points worse, eight no better.
    alternatives: int = 4
    """Number of likeliest tokens wanted at every place; P(marker) is read off them."""
    max_tokens: int | None = None
    """Limit of one continuation; None for as many as an answer may have."""
    stop_at_steps: bool = False
    """End a continuation with its first step."""


class StateView(Protocol):
    """A task's judgement of the states of one problem."""

    def state(self, ids: Sequence[int]) -> Hashable | None:
        """The state after generated ids that end where a step does: equal for equal states,
        whatever path led there; None if one of the steps is illegal."""
        ...


class SearchStrategy(Protocol):
    def pick(self) -> list[Expansion]:
        """Pick the next expansions; called at the start, and after each branch. Never waits for
        what is in flight unless its rule demands it."""
        ...

    def record(self, branch: Branch) -> Branch:
        """Record a branch. Returns the version for the tree and the caller."""
        ...
