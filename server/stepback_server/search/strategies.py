"""The strategies by name. A new one is its class and one line here."""

from collections.abc import Callable
from dataclasses import dataclass

from stepback_core.trace import TokenGrammar
from stepback_core.wire import SolveRequest, Strategy
from stepback_server.search.best_first import BestFirst, StepView
from stepback_server.search.published import OneRound, SelfBacktracking
from stepback_server.search.strategy import SearchStrategy


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a strategy may know of the search that it is made for."""

    request: SolveRequest
    grammar: TokenGrammar
    view: StepView | None
    """What the task says of steps; None for a bare prompt."""
    tokens_per_branch: int
    ends_at_a_win: bool
    """Whether a checked answer ends the search."""


def _best_first(setting: Setting) -> SearchStrategy:
    breadth = setting.request.breadth
    return BestFirst(
        breadth,
        setting.grammar,
        setting.view,
        longest=setting.tokens_per_branch,
        enough=None if setting.ends_at_a_win else breadth,
    )


def _self_backtracking(setting: Setting) -> SearchStrategy:
    request = setting.request
    return SelfBacktracking(
        request.breadth, request.backtracks, request.temperature, setting.grammar
    )


def _greedy(setting: Setting) -> SearchStrategy:
    return OneRound(1, 0.0)


def _one_round(setting: Setting) -> SearchStrategy:
    return OneRound(setting.request.breadth, setting.request.temperature)


STRATEGIES: dict[Strategy, Callable[[Setting], SearchStrategy]] = {
    Strategy.BEST_FIRST: _best_first,
    Strategy.SELF_BACKTRACKING: _self_backtracking,
    Strategy.GREEDY: _greedy,
    Strategy.BEST_OF_N: _one_round,
    Strategy.MAJORITY: _one_round,
}
