"""The strategies by name. A new one is its class and one line here."""

from collections.abc import Callable
from dataclasses import dataclass

from stepback_core.schemas import SolveRequest, Strategy
from stepback_core.trace import TokenGrammar
from stepback_server.search.best_first import BestFirst
from stepback_server.search.self_backtracking import OneRound, SelfBacktracking
from stepback_server.search.strategy import SearchStrategy, StepView


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What a strategy may know of the search that it is made for."""

    request: SolveRequest
    grammar: TokenGrammar
    view: StepView | None
    """What the task says of steps; None for a bare prompt."""
    tokens_per_branch: int
    ends_at_a_win: bool
    """Whether a checked answer ends the search."""


def _best_first(setup: Setup) -> SearchStrategy:
    breadth = setup.request.breadth
    return BestFirst(
        breadth,
        setup.grammar,
        setup.view,
        longest=setup.tokens_per_branch,
        enough=None if setup.ends_at_a_win else breadth,
    )


def _self_backtracking(setup: Setup) -> SearchStrategy:
    request = setup.request
    return SelfBacktracking(request.breadth, request.backtracks, request.temperature, setup.grammar)


def _greedy(setup: Setup) -> SearchStrategy:
    return OneRound(1, 0.0)


def _one_round(setup: Setup) -> SearchStrategy:
    return OneRound(setup.request.breadth, setup.request.temperature)


STRATEGIES: dict[Strategy, Callable[[Setup], SearchStrategy]] = {
    Strategy.BEST_FIRST: _best_first,
    Strategy.SELF_BACKTRACKING: _self_backtracking,
    Strategy.GREEDY: _greedy,
    Strategy.BEST_OF_N: _one_round,
    Strategy.MAJORITY: _one_round,
}
