"""The strategies by name. A new one is its class and one line here."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from random import Random

from stepback_core.schemas import Sampling, Select, SolveRequest, Strategy
from stepback_core.trace import TokenGrammar
from stepback_server.search.beam import Beam
from stepback_server.search.best_first import BestFirst, BestFirstConfig
from stepback_server.search.sampling import Independent, Majority
from stepback_server.search.self_backtracking import Sampler, SelfBacktracking
from stepback_server.search.strategy import SearchStrategy, StateView
from stepback_server.search.tree import Branch, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """Facts that a strategy may use of its search."""

    request: SolveRequest
    grammar: TokenGrammar
    view: StateView | None
    """The task's view of steps; None for a bare prompt."""
    tokens_per_branch: int
    ends_at_a_win: bool
    """True if a checked answer ends the search."""
    select: Select
    """Value in use."""
    answer_of: Callable[[Branch], Hashable]
    """Equal for branches that end in the same answer."""
    root: State
    """Start of the search: the prompt, or steps that the request gives."""


def _best_first(setup: Setup) -> SearchStrategy:
    breadth = setup.request.breadth
    return BestFirst(
        breadth,
        setup.grammar,
        setup.view,
        longest=setup.tokens_per_branch,
        # Without a checker nothing else would end the search before its budget.
        enough=None if setup.ends_at_a_win else breadth,
        config=BestFirstConfig(marker=not setup.request.ignore_marker),
        root=setup.root,
    )


def _self_backtracking(setup: Setup) -> SearchStrategy:
    # As in the paper. Independent samples had a right candidate for 81 % of problems, beams for 94
    # % (docs/search.md).
    sampling = setup.request.sampling or Sampling.BEAM
    return _rounds(setup, sampling, setup.request.backtracks)


def _rounds(setup: Setup, sampling: Sampling, backtracks: int) -> SearchStrategy:
    # One generator for all states: the rounds of a search follow each other, so a seed fixes every
    # draw.
    request, random = setup.request, Random(setup.request.seed)

    def sampler(state: State) -> Sampler:
        n, temperature = request.breadth, request.temperature
        if sampling is Sampling.INDEPENDENT:
            return Independent(n, temperature, state=state)
        most = setup.tokens_per_branch
        return Beam(state, n, temperature, setup.grammar, max_tokens=most, random=random)

    return SelfBacktracking(
        request.breadth,
        backtracks,
        setup.grammar,
        sampler,
        root=setup.root,
        best_first=sampling is Sampling.BEAM,
        rollback=request.rollback,
        random=random,
    )


def _greedy(setup: Setup) -> SearchStrategy:
    return Independent(1, 0.0, state=setup.root)


def _best_of_n(setup: Setup) -> SearchStrategy:
    request = setup.request
    if request.sampling is Sampling.BEAM:
        # A beam is the published rule without a round of rollbacks.
        return _rounds(setup, Sampling.BEAM, 0)
    return Independent(
        request.breadth,
        request.temperature,
        state=setup.root,
        # Without a checker every sample is wanted in any case, so starting with few only costs
        # time.
        widening=request.widening and setup.ends_at_a_win,
        greedy_first=request.greedy_first,
    )


def _majority(setup: Setup) -> SearchStrategy:
    request, grammar = setup.request, setup.grammar
    is_weighted = setup.select is Select.WEIGHTED_VOTE
    return Majority(
        request.breadth,
        request.temperature,
        answer_of=setup.answer_of,
        # The vote's early end depends on weights of at most 1, which confidences are.
        weight_of=lambda branch: branch.confidence(grammar) if is_weighted else 1.0,
        state=setup.root,
        widening=request.widening,
        greedy_first=request.greedy_first,
    )


STRATEGIES: dict[Strategy, Callable[[Setup], SearchStrategy]] = {
    Strategy.BEST_FIRST: _best_first,
    Strategy.SELF_BACKTRACKING: _self_backtracking,
    Strategy.GREEDY: _greedy,
    Strategy.BEST_OF_N: _best_of_n,
    Strategy.MAJORITY: _majority,
}
