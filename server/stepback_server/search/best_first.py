"""Best-first search over the tokens that the model could have written. Pure.

A greedy continuation is written from the prompt. At each of its tokens the likeliest other tokens
are known; each of these *turns* opens another continuation, and the likeliest turn, by the
probability of everything up to it, is taken next. So no text is written twice, and tokens are spent
in the order in which the model believes in them. Sampling without repetition in this way is known
as priority sampling (arXiv 2402.18734); what is added here looks at steps:

- A continuation is followed only as far as its steps are legal and lead to states that no other
  path has reached before with as much room left. No turn is taken behind that point.
- A turn to the end of the text is an answer that costs no token.
- The marker's probability at a step boundary is the share that turns there do not have: a state
  that the model believes dead comes late, and is dropped only if nothing better is left.
- The number of continuations in flight grows with those that have failed: an easy problem costs
  little more than one greedy answer, a hard one keeps the engine busy.
- A scorer of unfinished texts adds lambda * log(score) of the steps before a turn to its priority.
- An answer is written in chunks, so that little is lost behind an illegal step of a long one. One
  that was cut goes on before any turn is taken.

Choices depend on the continuations before in order of asking, never on which one ends first: the
same search gives the same tree.
"""

import heapq
import itertools
from collections.abc import Hashable
from dataclasses import dataclass, replace
from math import exp, log1p

from stepback_core.schemas import Outcome
from stepback_core.trace import TokenGrammar
from stepback_server.engine.base import Alternative, Finish
from stepback_server.search.marker_probability import marker_logprob
from stepback_server.search.strategy import Expansion, StateView
from stepback_server.search.tree import Branch, State

# Turns below this log-probability, one in 100,000, are not kept: none would ever be sampled.
_MIN_LOGPROB = -11.5


@dataclass(frozen=True, slots=True, kw_only=True)
class BestFirstConfig:
    """Ablation switches and two tuning parameters."""

    legality: bool = True
    """Follow no continuation after an illegal step."""
    merging: bool = True
    """Follow none after a state that another path has reached."""
    likeliest_first: bool = True
    """Take the likeliest turn next; else the one that was found first."""
    marker: bool = True
    """Let the marker's probability lower that of the alternatives."""
    widening: bool = True
    """Grow the number in flight with the failures; else start with all."""
    alternatives: int = 4
    """Tokens known at each position, at least 1, the sampled one among them where it is likely."""
    chunk_tokens: int = 32
    """Tokens that are written before the search looks at them."""
    stop_at_steps: bool = False
    """Look after every step as well: more requests, and nothing written after an illegal step."""


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
    """See the module. `view` is None if no task can judge; `enough` answers end the search
    where no check does; a state of `longest` ids or more is not continued."""

    def __init__(
        self,
        breadth: int,
        grammar: TokenGrammar,
        view: StateView | None,
        *,
        longest: int,
        enough: int | None,
        config: BestFirstConfig = BestFirstConfig(),
        root: State | None = None,
    ) -> None:
        self._breadth = breadth
        self._grammar = grammar
        self._view = view
        self._longest = longest
        self._enough = enough
        self._config = config
        self._order = itertools.count()
        # The second entry breaks ties in order of finding: a _Turn itself cannot be compared.
        self._turns: list[tuple[float, int, _Turn]] = []
        root = root or State()
        # Continuations that go on, the root at first.
        self._cut = [root]
        self._asked = self._recorded = self._failed = self._answers = 0
        self._reached: dict[Hashable, int] = {}
        # The root's own state counts as reached: a path that comes back to it has gained nothing.
        if view is not None:
            self._reached[view.state(root.ids)] = len(root.ids)
        """Fewest ids that led to each state."""

    def pick(self) -> list[Expansion]:
        picked: list[Expansion] = []
        while self._may_ask() and (state := self._best_state()):
            self._asked += 1
            picked.append(
                Expansion(
                    state,
                    1,
                    0.0,
                    alternatives=self._config.alternatives,
                    max_tokens=self._config.chunk_tokens,
                    stop_at_steps=self._config.stop_at_steps,
                )
            )
        return picked

    def record(self, branch: Branch) -> Branch:
        """Find the turns of a branch, up to where it must not be followed. Returns the branch
        without its alternatives, for the tree."""
        self._recorded += 1
        alternatives = branch.sample.alternatives
        # The tree keeps every branch to the end of the search, and alternatives are most of its
        # memory.
        branch = replace(branch, sample=replace(branch.sample, alternatives=()))
        ids, begin = branch.ids, len(branch.state.ids)
        likelihood = sum(branch.state.logprobs)
        is_new = True
        for position, logprob in enumerate(branch.sample.logprobs):
            # Before the token counts: a turn parts from the text that stands in front of it.
            if is_new and alternatives:
                self._find_turns(branch, position, likelihood, alternatives[position])
            likelihood += logprob
            length = begin + position + 1
            if self._ends_a_step(ids[length - 1]):
                state = self._look(ids[:length])
                if self._is_illegal(state):
                    self._failed += 1
                    return branch.refuse(length)
                is_new = is_new and not self._was_reached(state, ids[:length])
        self._end(branch, is_new=is_new)
        return branch

    def _may_ask(self) -> bool:
        if self._enough is not None and self._answers >= self._enough:
            return False
        # Measured in docs/search.md: with all in flight from the start, 11 points are lost at the
        # same budget.
        width = 1 + self._failed // 2 if self._config.widening else self._breadth
        return self._asked - self._recorded < min(self._breadth, width)

    def _best_state(self) -> State | None:
        """The state to continue next; None if none is left."""
        # Before any turn: what was cut is the likeliest text so far, and its prefix is warm in the
        # cache.
        while self._cut:
            if len((state := self._cut.pop()).ids) < self._longest:
                return state
        while self._turns:
            state = heapq.heappop(self._turns)[-1].state()
            if len(state.ids) < self._longest and self._is_worth_it(state.ids):
                return state
        return None

    def _is_worth_it(self, ids: tuple[int, ...]) -> bool:
        """Tell whether the last id, a turn, leads to what is legal and new."""
        if self._ends_a_step(ids[-1]):
            state = self._look(ids)
            # Looked at only now, not when it was found: most turns are never taken, and a look
            # costs a call of the task.
            return not self._is_illegal(state) and not self._was_reached(state, ids)
        return True

    def _end(self, branch: Branch, *, is_new: bool) -> None:
        """Go on with a branch that was only cut; count one that has ended."""
        if (
            is_new
            and branch.outcome is Outcome.UNFINISHED
            # An aborted sample ends where the search did, not where its text does.
            and branch.sample.finish is not Finish.ABORTED
        ):
            self._cut.append(branch.go_on())
        else:
            self._failed += 1
        self._answers += branch.outcome is Outcome.ANSWER

    def _find_turns(
        self,
        branch: Branch,
        position: int,
        likelihood: float,
        others: tuple[Alternative, ...],
    ) -> None:
        """Keep the other tokens of one position, with the likelihood of the text before it."""
        # Added here and not to the sum itself: a later bonus replaces an earlier one, it does not
        # come on top.
        likelihood += branch.bonus(len(branch.state.ids) + position)
        if not self._config.marker:
            marker = marker_logprob(self._grammar.marker_id, branch.sample, position)
            # The share of all other tokens; short of 1, whose complement has no logarithm.
            likelihood -= log1p(-min(exp(marker), 0.999999))
        for token, logprob in others:
            # The marker is no turn: it ends a text without an answer.
            if token != self._grammar.marker_id and logprob > _MIN_LOGPROB:
                order = next(self._order)
                priority = likelihood + logprob if self._config.likeliest_first else -order
                turn = _Turn(branch, position, token, logprob)
                heapq.heappush(self._turns, (-priority, order, turn))

    def _ends_a_step(self, token: int) -> bool:
        return token == self._grammar.end_id or token in self._grammar.separator_ids

    def _look(self, ids: tuple[int, ...]) -> Hashable | None:
        """Return the state where a step ends; an unknown one counts as unlike all others."""
        # A fresh object equals nothing but itself, so without a task no two texts merge.
        return object() if self._view is None else self._view.state(ids)

    def _is_illegal(self, state: Hashable | None) -> bool:
        return state is None and self._config.legality

    def _was_reached(self, state: Hashable | None, ids: tuple[int, ...]) -> bool:
        """Tell whether another path has led to a state, and left as much room; it counts as reached
        now. The end of a text is no state of its own."""
        if state is None or not self._config.merging or ids[-1] == self._grammar.end_id:
            return False
        # A shorter way to the same state leaves more tokens for the rest, so that one may go on.
        if self._reached.get(state, len(ids) + 1) <= len(ids):
            return True
        if self._view is not None:
            self._reached[state] = len(ids)
        return False
