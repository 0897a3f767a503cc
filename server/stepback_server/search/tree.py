"""The search tree: states to sample from, and the branches that were sampled. Pure data."""

from dataclasses import dataclass, field

from stepback_core.trace import TokenGrammar
from stepback_core.wire import Outcome
from stepback_server.engine.base import Finish, Sample


@dataclass(frozen=True, slots=True)
class State:
    """What has been kept so far: ids since the prompt, and their log-probabilities."""

    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    branch: int | None = None
    """The branch that this is a prefix of; None for the root."""


@dataclass(frozen=True, slots=True)
class Branch:
    """One sample and the state that it continues."""

    number: int
    """In order of asking: deterministic, whichever sample ends first."""
    state: State
    sample: Sample
    outcome: Outcome

    @property
    def ids(self) -> tuple[int, ...]:
        """Everything generated since the prompt, the stop token included."""
        return self.state.ids + self.sample.ids

    @property
    def logprobs(self) -> tuple[float, ...]:
        return self.state.logprobs + self.sample.logprobs

    @property
    def score(self) -> float | None:
        """Mean log-probability a token; None where nothing was generated."""
        return sum(self.logprobs) / len(self.logprobs) if self.logprobs else None

    def roll_back(self, grammar: TokenGrammar) -> State:
        """The state before the erroneous step of a branch that ended in the marker."""
        kept = grammar.last_good_length(self.ids)
        return State(self.ids[:kept], self.logprobs[:kept], self.number)


@dataclass(slots=True)
class Tree:
    """Every branch of one search, in the order in which they ended."""

    grammar: TokenGrammar
    branches: list[Branch] = field(default_factory=list[Branch])

    def add(self, number: int, state: State, sample: Sample) -> Branch:
        branch = Branch(number, state, sample, self._outcome(sample))
        self.branches.append(branch)
        return branch

    def _outcome(self, sample: Sample) -> Outcome:
        if sample.finish is not Finish.STOP or not sample.ids:
            return Outcome.UNFINISHED
        return Outcome.BACKTRACK if sample.ids[-1] == self.grammar.marker_id else Outcome.ANSWER

    @property
    def answers(self) -> list[Branch]:
        """The branches that reached an end, in order of asking."""
        ended = [branch for branch in self.branches if branch.outcome is Outcome.ANSWER]
        return sorted(ended, key=lambda branch: branch.number)

    @property
    def backtracks(self) -> int:
        return sum(branch.outcome is Outcome.BACKTRACK for branch in self.branches)

    @property
    def generated_tokens(self) -> int:
        return sum(branch.sample.generated_tokens for branch in self.branches)

    @property
    def cached_tokens(self) -> int:
        return sum(branch.sample.cached_tokens for branch in self.branches)
