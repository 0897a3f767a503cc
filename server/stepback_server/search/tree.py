"""The search tree: states to sample from, and the branches that were sampled. Pure data."""

from dataclasses import dataclass, field, replace
from math import inf

from stepback_core.schemas import Outcome
from stepback_core.trace import TokenGrammar
from stepback_server.engine.base import Finish, Sample
from stepback_server.search.marker_probability import (
    confidence,
    marker_logprobs,
    p_marker_after_steps,
)


@dataclass(frozen=True, slots=True)
class State:
    """Start of a continuation: ids since the prompt, and their log-probabilities."""

    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    branch: int | None = None
    """The branch that this is a prefix of, but for its last id where that was chosen by the
    search; None for the root."""
    chosen: tuple[int, ...] = ()
    """The places of the ids that the search chose itself, and the engine did not generate."""
    # Given ids count neither as generated nor in the score: the model did not choose them.
    given: int = 0
    """Number of first ids that the request gave; they have no log-probabilities of their own."""
    turned: bool = False
    """True if the search chose the last id itself."""
    marker_logprobs: tuple[float, ...] = ()
    """Log-probability of the marker at each place, instead of the id that is there."""
    bonuses: tuple[tuple[int, float], ...] = ()
    """Additions of a scorer to the log-probability of unfinished texts, each with the text's length
    in ids, ascending."""

    @classmethod
    def of_given(cls, ids: tuple[int, ...]) -> "State":
        """The root of a search that starts from given ids."""
        unknown = len(ids)
        # 0.0 adds nothing to a sum of log-probabilities, and -inf is a P(marker) of 0: places that
        # nobody knows must not tip a choice.
        return cls(ids, (0.0,) * unknown, given=unknown, marker_logprobs=(-inf,) * unknown)

    @property
    def shared_ids(self) -> tuple[int, ...]:
        """Prefix shared with the parent branch."""
        return self.ids[:-1] if self.turned else self.ids


@dataclass(frozen=True, slots=True)
class Branch:
    """One sample and the state that it continues."""

    number: int
    """Number in order of request: deterministic, whichever sample ends first."""
    state: State
    sample: Sample
    outcome: Outcome
    illegal_at: int | None = None
    """Ids up to the end of the first illegal step, where a search has found one."""
    marker_logprobs: tuple[float, ...] = ()
    """Log-probability of the marker at each place of `ids`, instead of the id that is there."""
    bonuses: tuple[tuple[int, float], ...] = ()
    """Bonuses of the state, and of the branch's own steps."""

    @property
    def node(self) -> int:
        """Its id in the tree that callers see, where the root is 0."""
        return self.number + 1

    @property
    def parent_node(self) -> int:
        """The node whose kept part it continues."""
        # Node 0 is the root, which is no branch.
        return 0 if self.state.branch is None else self.state.branch + 1

    @classmethod
    def of(cls, grammar: TokenGrammar, number: int, state: State, sample: Sample) -> "Branch":
        """A branch, with its outcome read off its last token."""
        ids = state.ids + sample.ids
        # Not the last id alone: the limit may fall on a separator, which is no end.
        last = ids[-1] if sample.finish is Finish.STOP and ids else None
        outcome = Outcome.UNFINISHED
        if last == grammar.marker_id:
            outcome = Outcome.BACKTRACK
        elif last == grammar.end_id:
            outcome = Outcome.ANSWER
        markers = state.marker_logprobs + marker_logprobs(grammar.marker_id, sample)
        return cls(number, state, sample, outcome, None, markers, state.bonuses)

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids since the prompt, the stop token included."""
        return self.state.ids + self.sample.ids

    @property
    def logprobs(self) -> tuple[float, ...]:
        return self.state.logprobs + self.sample.logprobs

    @property
    def shown_ids(self) -> tuple[int, ...]:
        """The ids without what came after an illegal step."""
        return self.ids[: self.illegal_at]

    @property
    def generated(self) -> int:
        """Tokens of the whole branch that the engine generated."""
        return len(self.ids) - self.state.given - len(self.state.chosen)

    @property
    def score(self) -> float | None:
        """Mean log-probability a token after the given ones; None if nothing was written."""
        # A mean and no sum, which would favour short answers.
        written = len(self.logprobs) - self.state.given
        return sum(self.logprobs) / written if written else None

    def roll_back(self, grammar: TokenGrammar) -> State:
        """Return the state before the erroneous step of a branch that ended in the marker."""
        # A slice: nothing is tokenised again, so the prefix is the one that vLLM has cached.
        return self.keep(grammar.last_good_length(self.ids))

    def keep(self, length: int) -> State:
        """Return the state after the first `length` ids."""
        return State(
            self.ids[:length],
            self.logprobs[:length],
            self.number,
            # Only places that are still there: `generated` is counted from them.
            tuple(place for place in self.state.chosen if place < length),
            self.state.given,
            marker_logprobs=self.marker_logprobs[:length],
            bonuses=tuple(each for each in self.bonuses if each[0] <= length),
        )

    def bonus(self, length: int) -> float:
        """Return what a scorer adds to the log-probability of the first `length` ids: the bonus of
        the longest beginning that it has scored."""
        return next((bonus for end, bonus in reversed(self.bonuses) if end <= length), 0.0)

    def go_on(self) -> State:
        """The state at the end of a branch that was cut."""
        return self.keep(len(self.ids))

    def refuse(self, illegal_at: int) -> "Branch":
        """Return this branch with the step that ends there marked as illegal."""
        return replace(self, outcome=Outcome.ILLEGAL, illegal_at=illegal_at)

    def turn(self, position: int, token: int, logprob: float) -> State:
        """The state that takes another token at a position of this branch's sample."""
        at = len(self.state.ids) + position
        kept = self.keep(at)
        return replace(
            kept,
            ids=(*kept.ids, token),
            logprobs=(*kept.logprobs, logprob),
            chosen=(*kept.chosen, at),
            turned=True,
            # Up to and with the exchanged token: its distribution is that of the text before,
            # which both share.
            marker_logprobs=self.marker_logprobs[: at + 1],
        )

    def p_marker_after_steps(self, grammar: TokenGrammar) -> list[float | None]:
        """Return P(marker) after each step; None for one that nothing was written after."""
        return p_marker_after_steps(grammar, self.ids, self.marker_logprobs)

    def confidence(self, grammar: TokenGrammar) -> float:
        """Return the product of 1 - P(marker) over the step ends and the end."""
        return confidence(self.p_marker_after_steps(grammar))


@dataclass(slots=True)
class Tree:
    """The branches of one search that count, in the order in which they came to."""

    branches: list[Branch] = field(default_factory=list[Branch])

    @property
    def answers(self) -> list[Branch]:
        """The branches that reached an end, in order of asking."""
        # By number: they are in the tree in the order in which they ended, which differs from run
        # to run.
        ended = [branch for branch in self.branches if branch.outcome is Outcome.ANSWER]
        return sorted(ended, key=lambda branch: branch.number)

    @property
    def backtracks(self) -> int:
        return sum(branch.outcome is Outcome.BACKTRACK for branch in self.branches)
