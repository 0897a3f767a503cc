"""Best-first search over the tokens that the model could have written. Pure.

A greedy continuation is written from the prompt. At each of its tokens the likeliest other tokens
are known; each of these *turns* opens another continuation, and the likeliest turn, by the
probability of everything up to it, is taken next. So no text is written twice, and tokens are spent
in the order in which the model believes in them. Sampling without repetition in this way is known
as priority sampling (arXiv 2402.18734); what is added here looks at steps:

- A continuation is followed only as far as its steps are legal and lead to states that no other
  path has reached before. No turn is taken behind that point.
- The marker's probability at a step boundary is the share that turns there do not have: a state
  that the model believes dead comes late, and is dropped only if nothing better is left.
- The number of continuations in flight grows with those that have failed: an easy problem costs
  little more than one greedy answer, a hard one keeps the engine busy.
- An answer is written in chunks, so that little is lost behind an illegal step of a long one.

Choices depend on the continuations before in order of asking, never on which one ends first: the
same search gives the same tree.
"""

import heapq
import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import exp, log1p
from typing import Protocol

from stepback_core.trace import TokenGrammar
from stepback_core.wire import Outcome
from stepback_server.engine.base import Finish
from stepback_server.search.strategy import Expansion
from stepback_server.search.tree import Branch, State

_UNTHINKABLE = -11.5
"""Turns below this log-probability, one in 100,000, are not kept: none would ever be sampled."""


class StepView(Protocol):
    """What a task says of the states of one problem. `ids` end where a step does."""

    def is_legal(self, ids: Sequence[int]) -> bool:
        """Whether the last step is legal after those before it."""
        ...

    def key(self, ids: Sequence[int]) -> Hashable | None:
        """Equal for equal states, whatever path led there; None where that is not known."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ideas:
    """What the search is made of. Each can be turned off, to measure what it is worth."""

    legality: bool = True
    """Follow no continuation behind an illegal step."""
    merging: bool = True
    """Follow none behind a state that another path has reached."""
    likeliest_first: bool = True
    """Take the likeliest turn next; else the one that was found first."""
    marker: bool = True
    """Let the marker's probability lower that of the turns beside it."""
    widening: bool = True
    """Grow the number in flight with the failures; else start with all."""
    alternatives: int = 4
    """Tokens known at each position, the sampled one included where it is among the likeliest."""
    chunk_tokens: int = 32
    """Tokens that are written before the search looks at them."""
    stop_at_steps: bool = False
    """Look after every step as well: more requests, and nothing written behind an illegal step."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """Another token at a position of a branch's sample."""

    branch: Branch
    position: int
    token: int
    logprob: float

    def state(self) -> State:
        return self.branch.turn(self.position, self.token, self.logprob)


class BestFirst:
    """See the module. `view` is None where no task can judge; `enough` answers end the search
    where no check does; a state of `longest` ids or more is not continued."""

    def __init__(
        self,
        breadth: int,
        grammar: TokenGrammar,
        view: StepView | None,
        *,
        longest: int,
        enough: int | None,
        ideas: Ideas = Ideas(),
    ) -> None:
        self._breadth = breadth
        self._grammar = grammar
        self._view = view
        self._longest = longest
        self._enough = enough
        self._ideas = ideas
        self._order = itertools.count()
        self._turns: list[tuple[float, int, _Turn]] = []
        self._next = [State()]
        self._asked = 0
        self._early: dict[int, Branch] = {}
        self._committed = 0
        self._answers = 0
        self._reached: set[Hashable] = set() if view is None else {view.key(())}
        self._picked: list[Expansion] = []
        self._choose()

    def pick(self) -> list[Expansion]:
        picked, self._picked = self._picked, []
        return picked

    def record(self, branch: Branch) -> list[Branch]:
        self._early[branch.number] = branch
        committed: list[Branch] = []
        while (following := self._early.pop(self._committed, None)) is not None:
            self._committed += 1
            committed.append(self._follow(following))
            # After each one, not after all: what has ended by now is an accident.
            self._choose()
        return committed

    def _choose(self) -> None:
        while self._may_ask() and (state := self._best_state()):
            self._asked += 1
            self._picked.append(
                Expansion(
                    state,
                    1,
                    0.0,
                    alternatives=self._ideas.alternatives,
                    max_tokens=self._ideas.chunk_tokens,
                    stop_at_steps=self._ideas.stop_at_steps,
                )
            )

    def _may_ask(self) -> bool:
        if self._enough is not None and self._answers >= self._enough:
            return False
        width = 1 + self._committed // 2 if self._ideas.widening else self._breadth
        return self._asked - self._committed < min(self._breadth, width)

    def _best_state(self) -> State | None:
        """The state to continue next; None where none is left."""
        while self._next:
            if len((state := self._next.pop()).ids) < self._longest:
                return state
        while self._turns:
            state = heapq.heappop(self._turns)[-1].state()
            if len(state.ids) >= self._longest:
                continue
            if self._closes_a_step(state.ids, len(state.ids)) and (
                self._is_illegal(state.ids) or self._was_reached(state.ids)
            ):
                continue
            return state
        return None

    def _follow(self, branch: Branch) -> Branch:
        """Find the turns of a branch, up to where it must not be followed."""
        ids, begin = branch.ids, len(branch.state.ids)
        likelihood = sum(branch.state.logprobs)
        is_new = True
        for position, logprob in enumerate(branch.sample.logprobs):
            if is_new:
                self._find_turns(branch, position, likelihood)
            likelihood += logprob
            length = begin + position + 1
            if not self._closes_a_step(ids, length):
                continue
            if self._is_illegal(ids[:length]):
                return branch.refuse(length)
            is_new = is_new and not self._was_reached(ids[:length])
        if is_new:
            self._end(branch)
        return branch

    def _closes_a_step(self, ids: Sequence[int], length: int) -> bool:
        """Whether the id before `length` does: a separator, or an end without one before it."""
        separators = self._grammar.separator_ids
        if ids[length - 1] == self._grammar.end_id:
            return length > 1 and ids[length - 2] not in separators
        return ids[length - 1] in separators

    def _end(self, branch: Branch) -> None:
        """Count an answer, or go on with what was only cut."""
        self._answers += branch.outcome is Outcome.ANSWER
        if branch.outcome is Outcome.UNFINISHED and branch.sample.finish is not Finish.ABORTED:
            self._next.append(branch.go_on())

    def _find_turns(self, branch: Branch, position: int, likelihood: float) -> None:
        """Keep the other tokens of one position, with the likelihood of the text before it."""
        others = branch.sample.alternatives[position]
        marker_id = self._grammar.marker_id
        if not self._ideas.marker:
            tokens = {branch.sample.ids[position]: branch.sample.logprobs[position], **dict(others)}
            likelihood -= log1p(-min(exp(tokens.get(marker_id, float("-inf"))), 0.999999))
        for token, logprob in others:
            if token not in self._grammar.stop_ids and logprob > _UNTHINKABLE:
                order = next(self._order)
                priority = likelihood + logprob if self._ideas.likeliest_first else -order
                turn = _Turn(branch, position, token, logprob)
                heapq.heappush(self._turns, (-priority, order, turn))

    def _is_illegal(self, ids: Sequence[int]) -> bool:
        """Whether the step that ends here is."""
        return self._view is not None and self._ideas.legality and not self._view.is_legal(ids)

    def _was_reached(self, ids: Sequence[int]) -> bool:
        """Whether another path has led to the state here before; it counts as reached now."""
        key = self._view.key(ids) if self._view is not None and self._ideas.merging else None
        if key is None:
            return False
        if key in self._reached:
            return True
        self._reached.add(key)
        return False
