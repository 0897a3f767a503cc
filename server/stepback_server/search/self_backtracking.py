"""Self-backtracking: rounds of samples, rolled back at the marker. Pure."""

from collections.abc import Callable, Sequence
from math import isqrt
from random import Random
from typing import Protocol

from stepback_core.schemas import Outcome, Rollback
from stepback_core.trace import TokenGrammar
from stepback_server.search.strategy import Expansion
from stepback_server.search.tree import Branch, State


class Sampler(Protocol):
    """Draws the continuations of one state: `Beam` or `Independent`."""

    def pick(self) -> list[Expansion]: ...

    def record(self, branch: Branch) -> Branch: ...


class SelfBacktracking:
    """The published rule (arXiv 2502.04404, section 3.2), b rounds after the first expansion.

    Each round expands every state of the frontier into N samples. Of the round's samples that end
    in the marker, the first floor(sqrt(N)) whose rolled-back state was not visited before make the
    next frontier: the likeliest first with `best_first`, by a scorer's word on what is kept too,
    else in order of asking. The root (the
    prompt, or the steps that a request gives) counts as visited, and nothing goes back behind it.
    A round waits for all of its samples.
    """

    def __init__(
        self,
        breadth: int,
        backtracks: int,
        grammar: TokenGrammar,
        sampler: Callable[[State], Sampler],
        *,
        root: State | None = None,
        best_first: bool = False,
        rollback: Rollback = Rollback.MARKER,
        random: Random | None = None,
    ) -> None:
        """`random` is for a rollback that is."""
        self._breadth = breadth
        self._rounds_left = backtracks
        self._grammar = grammar
        self._sampler = sampler
        self._best_first = best_first
        self._rollback = rollback
        self._random = random or Random()
        root = root or State()
        self._root = root
        # By ids: the same text in other tokens is another prefix, to the model and to its cache.
        self._visited: set[tuple[int, ...]] = {root.ids}
        self._round: list[Branch] = []
        self._samplers = [sampler(root)]
        # Which sampler a number came from. It is empty again when the round is over.
        self._sampler_of: dict[int, Sampler] = {}
        self._picked = 0

    def pick(self) -> list[Expansion]:
        picked = self._pick_of_round()
        # A round waits for all of its samples, as published: the frontier is chosen among all of
        # them.
        if picked or self._sampler_of or self._rounds_left == 0:
            return picked
        self._rounds_left -= 1
        self._samplers = [self._sampler(state) for state in self._roll_back()]
        self._round = []
        return self._pick_of_round()

    def record(self, branch: Branch) -> Branch:
        told = self._sampler_of.pop(branch.number).record(branch)
        self._round.append(told)
        return told

    def _pick_of_round(self) -> list[Expansion]:
        picked: list[Expansion] = []
        for sampler in self._samplers:
            for expansion in sampler.pick():
                numbers = range(self._picked, self._picked + expansion.n)
                self._sampler_of.update(dict.fromkeys(numbers, sampler))
                self._picked += expansion.n
                picked.append(expansion)
        return picked

    def _roll_back(self) -> list[State]:
        frontier: list[State] = []
        for branch in self._rejected():
            # floor(sqrt(N)), of the paper.
            if len(frontier) == isqrt(self._breadth):
                break
            if (state := self._kept(branch)) is not None:
                self._visited.add(state.ids)
                frontier.append(state)
        return frontier

    def _rejected(self) -> Sequence[Branch]:
        """The branches that may be rolled back, in the order in which they are."""
        # Not in order of ending, which differs from run to run.
        ended = sorted(self._round, key=lambda branch: branch.number)
        if self._rollback is Rollback.RANDOM_BRANCH:
            ended = [branch for branch in ended if branch.outcome is not Outcome.UNFINISHED]
            # All of them, shuffled: some may lead to states that were visited, and the next ones
            # take their place.
            return self._random.sample(ended, len(ended))
        rejected = [branch for branch in ended if branch.outcome is Outcome.BACKTRACK]
        if self._best_first:
            rejected.sort(key=self._worth, reverse=True)
        return rejected

    def _worth(self, branch: Branch) -> float:
        kept = self._grammar.last_good_length(branch.ids)
        # The bonus of what is kept alone: a scorer's word on the rejected step must not count.
        return (branch.score or 0.0) + branch.bonus(kept)

    def _kept(self, branch: Branch) -> State | None:
        """The state that a branch is rolled back to; None if it was visited before."""
        if self._rollback is Rollback.MARKER:
            state = branch.roll_back(self._grammar)
            # A marker after the first step would lead back to the root, which was expanded already.
            is_fresh = len(state.ids) > len(self._root.ids) and state.ids not in self._visited
            return state if is_fresh else None
        last = self._grammar.last_good_length(branch.ids[:-1])  # without its marker or end
        first = len(self._root.ids) + 1
        lengths = [end for end in self._grammar.step_ends(branch.ids) if first <= end <= last]
        fresh = [length for length in lengths if branch.ids[:length] not in self._visited]
        return branch.keep(self._random.choice(fresh)) if fresh else None
