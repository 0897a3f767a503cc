"""Stochastic beam search: distinct continuations, sampled without replacement. Pure.

Gumbel-top-k over the tree of texts (arXiv 1903.06059), computed lazily. Each text has the key
log p + Gumbel noise, where p is its probability at the temperature; the N texts with the greatest
keys are a sample of N without replacement. A prefix has the greatest key among its texts, so:

- What the engine samples from a prefix *is* the text with that prefix's key.
- At each place of it the other tokens are prefixes of other texts. Their keys are Gumbel noise
  around their own log p, truncated at the key of the sampled text.
- The prefix with the greatest key is continued next.

So a beam of N costs N continuations, each from the token where it parts from the others, instead
of one engine request for every token of every beam. Two approximations remain. Of each place only
the tokens that the engine names are known; all others together count as one in the normalisation.
And as many prefixes are continued at once as texts have ended, before all of the keys that could
exceed theirs are known: with one in flight the order would be exact.
"""

import heapq
import itertools
from dataclasses import dataclass, replace
from math import exp, log, log1p
from random import Random

from stepback_core.trace import TokenGrammar
from stepback_server.engine.base import Alternative
from stepback_server.search.strategy import Expansion
from stepback_server.search.tree import Branch, State

_ALTERNATIVES = 8
# Share that is left for the tokens that the engine does not name, at least.
_LEAST = 1e-12


@dataclass(frozen=True, slots=True)
class _Prefix:
    """A state that may be continued; the branch that it parts from builds it when it is."""

    branch: Branch | None
    position: int
    token: int
    logprob: float
    likelihood: float
    """Log-probability at the temperature, from where the beam begins to its last token."""
    key: float


class Beam:
    """Sample `n` distinct continuations of a state; at temperature 0 the likeliest ones.

    A state of `max_tokens` ids or more is not continued."""

    def __init__(
        self,
        state: State,
        n: int,
        temperature: float,
        grammar: TokenGrammar,
        *,
        max_tokens: int,
        random: Random,
    ) -> None:
        self._root = state
        self._n = n
        self._temperature = temperature
        self._grammar = grammar
        self._max_tokens = max_tokens
        self._random = random
        self._order = itertools.count()
        self._heap: list[tuple[float, int, _Prefix]] = []
        # By ids, since branches come back in any order. Distinct texts part somewhere, so no ids
        # stand twice.
        self._continued: dict[tuple[int, ...], _Prefix] = {}
        self._started = self._ended = 0
        self._push(_Prefix(None, 0, 0, 0.0, 0.0, self._key(0.0, None)))

    def pick(self) -> list[Expansion]:
        picked: list[Expansion] = []
        while self._may_start() and (state := self._pop()):
            self._started += 1
            picked.append(Expansion(state, 1, self._temperature, alternatives=_ALTERNATIVES))
        return picked

    def record(self, branch: Branch) -> Branch:
        """Find where other texts part from a branch. Returns it without its alternatives."""
        self._ended += 1
        prefix = self._continued.pop(branch.state.ids)
        # As in best-first search: alternatives are most of a branch's memory.
        told = replace(branch, sample=replace(branch.sample, alternatives=()))
        likelihood = prefix.likelihood
        for position, others in enumerate(branch.sample.alternatives):
            sampled = branch.sample.ids[position], branch.sample.logprobs[position]
            shares = self._shares((sampled, *others))
            for (token, logprob), share in zip(others, shares[1:], strict=True):
                below = likelihood + share
                key = self._key(below, prefix.key)
                self._push(_Prefix(told, position, token, logprob, below, key))
            likelihood += shares[0]
        return told

    def _may_start(self) -> bool:
        in_flight = self._started - self._ended
        # Doubling: a prefix is chosen well once the keys above it are known, and each text that
        # ends tells more of them.
        return self._started < self._n and in_flight < max(1, self._ended)

    def _push(self, prefix: _Prefix) -> None:
        # heapq gives the least first.
        heapq.heappush(self._heap, (-prefix.key, next(self._order), prefix))

    def _pop(self) -> State | None:
        while self._heap:
            prefix = heapq.heappop(self._heap)[-1]
            state = self._root
            if prefix.branch is not None:
                state = prefix.branch.turn(prefix.position, prefix.token, prefix.logprob)
            # A text that has ended needs no room.
            if len(state.ids) < self._max_tokens or state.ids[-1] in self._grammar.stop_ids:
                self._continued[state.ids] = prefix
                return state
        return None

    def _key(self, likelihood: float, limit: float | None) -> float:
        """Gumbel noise around a log-probability, truncated at a limit."""
        # The limit of the noise: a beam at temperature 0 is the N likeliest texts.
        if self._temperature == 0:
            return likelihood
        exponential = self._random.expovariate(1.0)
        if limit is None:
            return likelihood - log(exponential)
        # Maddison, Tarlow and Minka's truncation: the sampled text holds the greatest key, so all
        # others lie below it.
        return likelihood - log(exp(likelihood - limit) + exponential)

    def _shares(self, told: tuple[Alternative, ...]) -> list[float]:
        """Log-probabilities at the temperature of the tokens that the engine names."""
        power = 1 / self._temperature if self._temperature else 1.0
        rest = max(1 - sum(exp(logprob) for _, logprob in told), _LEAST)
        weights = [logprob * power for _, logprob in told]
        # The greatest comes out before exp: at low temperatures the powers would underflow to a sum
        # of 0.
        greatest = max(weights)
        total = sum(exp(weight - greatest) for weight in weights)
        total += exp(log(rest) * power - greatest)
        norm = greatest + log1p(total - 1)
        return [weight - norm for weight in weights]
