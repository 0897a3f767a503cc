"""The published rule, and the baselines beside it. Pure."""

from math import isqrt

from stepback_core.schemas import Outcome
from stepback_core.trace import TokenGrammar
from stepback_server.search.strategy import Expansion
from stepback_server.search.tree import Branch, State


class OneRound:
    """Sample once from the prompt: greedy with n=1 and temperature 0, best-of-N, majority."""

    def __init__(self, n: int, temperature: float) -> None:
        self._expansions = [Expansion(State(), n, temperature)]

    def pick(self) -> list[Expansion]:
        picked, self._expansions = self._expansions, []
        return picked

    def record(self, branch: Branch) -> Branch:
        return branch


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
        self._in_flight = 0

    def pick(self) -> list[Expansion]:
        if self._in_flight or self._rounds_left == 0:
            return []
        self._rounds_left -= 1
        if self._round:
            self._frontier = self._roll_back()
            self._round = []
        self._in_flight = self._breadth * len(self._frontier)
        return [Expansion(state, self._breadth, self._temperature) for state in self._frontier]

    def record(self, branch: Branch) -> Branch:
        self._in_flight -= 1
        self._round.append(branch)
        return branch

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
