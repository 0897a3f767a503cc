"""The search strategies: which states to expand next. Pure: they see samples, never an engine.

A strategy is asked to `pick` expansions, is told of every branch with `record`, and is asked
again; it is done when it picks nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt
from typing import Protocol

from stepback_core.trace import TokenGrammar
from stepback_core.wire import Outcome, SolveRequest, Strategy
from stepback_server.search.tree import Branch, State


@dataclass(frozen=True, slots=True)
class Expansion:
    """Sample `n` continuations of a state."""

    state: State
    n: int
    temperature: float


class SearchStrategy(Protocol):
    def pick(self) -> list[Expansion]: ...
    def record(self, branch: Branch) -> None: ...


class OneRound:
    """Sample once from the prompt: greedy with n=1 and temperature 0, best-of-N, majority."""

    def __init__(self, n: int, temperature: float) -> None:
        self._expansions = [Expansion(State(), n, temperature)]

    def pick(self) -> list[Expansion]:
        picked, self._expansions = self._expansions, []
        return picked

    def record(self, branch: Branch) -> None:
        """One round needs no memory."""


class SelfBacktracking:
    """The published rule (arXiv 2502.04404, section 3.2), b rounds after the first expansion.

    Each round expands every state of the frontier into N samples. Of the round's samples that end
    in the marker, the first floor(sqrt(N)) whose rolled-back state was not visited before make the
    next frontier. The prompt counts as visited. A round waits for all of its samples.
    """

    def __init__(
        self, breadth: int, backtracks: int, temperature: float, grammar: TokenGrammar
    ) -> None:
        self._breadth = breadth
        self._rounds_left = backtracks + 1
        self._temperature = temperature
        self._grammar = grammar
        self._frontier = [State()]
        self._visited: set[tuple[int, ...]] = {()}
        self._round: list[Branch] = []

    def pick(self) -> list[Expansion]:
        if self._rounds_left == 0:
            return []
        self._rounds_left -= 1
        if self._round:
            self._frontier = self._roll_back()
            self._round = []
        return [Expansion(state, self._breadth, self._temperature) for state in self._frontier]

    def record(self, branch: Branch) -> None:
        self._round.append(branch)

    def _roll_back(self) -> list[State]:
        frontier: list[State] = []
        for branch in sorted(self._round, key=lambda branch: branch.number):
            if len(frontier) == isqrt(self._breadth):
                break
            if branch.outcome is not Outcome.BACKTRACK:
                continue
            state = branch.roll_back(self._grammar)
            if state.ids not in self._visited:
                self._visited.add(state.ids)
                frontier.append(state)
        return frontier


def _self_backtracking(request: SolveRequest, grammar: TokenGrammar) -> SearchStrategy:
    return SelfBacktracking(request.breadth, request.backtracks, request.temperature, grammar)


def _greedy(request: SolveRequest, grammar: TokenGrammar) -> SearchStrategy:
    return OneRound(1, 0.0)


def _one_round(request: SolveRequest, grammar: TokenGrammar) -> SearchStrategy:
    return OneRound(request.breadth, request.temperature)


STRATEGIES: dict[Strategy, Callable[[SolveRequest, TokenGrammar], SearchStrategy]] = {
    Strategy.SELF_BACKTRACKING: _self_backtracking,
    Strategy.GREEDY: _greedy,
    Strategy.BEST_OF_N: _one_round,
    Strategy.MAJORITY: _one_round,
}
"""A new strategy is its class and one line here."""
