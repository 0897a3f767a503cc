"""Events of a streamed search, made from its branches. Pure."""

from collections import Counter
from collections.abc import Callable, Iterator

from stepback_core.events import (
    BacktrackEvent,
    CandidateEvent,
    ProgressEvent,
    StepEvent,
    StruckStep,
    UsageEvent,
)
from stepback_core.schemas import Answer, Outcome
from stepback_core.trace import TraceCodec
from stepback_server.search.tree import Branch


def shown_steps(codec: TraceCodec, branch: Branch) -> list[str]:
    """Return the steps of a branch, up to and with its illegal one."""
    if branch.outcome is Outcome.ILLEGAL:
        return codec.ended_steps(branch.shown_ids)
    return codec.decode_steps(branch.shown_ids)


def kept_steps(codec: TraceCodec, branch: Branch) -> int:
    """Tell how many steps a branch has from its parent."""
    return len(codec.split_steps(branch.state.shared_ids)[0])


def p_marker(codec: TraceCodec, branch: Branch, steps: int) -> list[float | None]:
    """P(marker) after each of a branch's first steps; None if nothing was written after one."""
    after = branch.p_marker_after_steps(codec.tokens)[:steps]
    return after + [None] * (steps - len(after))


class EventWriter:
    """Tells one search's branches, each once, in the order in which they ended."""

    def __init__(
        self,
        codec: TraceCodec,
        answer_of: Callable[[Branch], Answer],
        in_flight: Callable[[], int] = lambda: 0,
    ) -> None:
        """`answer_of` judges a branch that reached an end. `in_flight` counts what is sampled."""
        self._codec = codec
        self._answer_of = answer_of
        self._in_flight = in_flight
        # Votes so far: an event cannot know of answers that come after it.
        self._votes = Counter[tuple[str, ...]]()
        self._branches = self._tokens = self._cached = self._backtracks = 0

    def tell(self, branch: Branch) -> Iterator[ProgressEvent]:
        """The branch's complete steps, then how it ended, where that is an answer or a rollback."""
        self._count(branch)
        kept = kept_steps(self._codec, branch)
        yield from self._steps(branch, kept)
        if branch.outcome in (Outcome.BACKTRACK, Outcome.ILLEGAL):
            yield self._backtrack(branch, kept)
        elif branch.outcome is Outcome.ANSWER:
            yield self._candidate(branch, kept)

    def usage(self, seconds: float) -> UsageEvent:
        """Totals of the branches so far, after `seconds`."""
        return UsageEvent(
            branches=self._branches,
            in_flight=self._in_flight(),
            generated_tokens=self._tokens,
            cached_tokens=self._cached,
            backtracks=self._backtracks,
            seconds_searching=seconds,
        )

    def _count(self, branch: Branch) -> None:
        self._branches += 1
        self._tokens += branch.sample.generated_tokens
        self._cached += branch.sample.cached_tokens
        self._backtracks += branch.outcome is Outcome.BACKTRACK

    def _steps(self, branch: Branch, kept: int) -> Iterator[StepEvent]:
        # Complete steps alone: the text after the last separator may still grow in another branch.
        steps = self._codec.ended_steps(branch.shown_ids)
        after = p_marker(self._codec, branch, len(steps))
        for index in range(kept, len(steps)):
            yield StepEvent(
                branch=branch.node,
                parent=branch.parent_node,
                index=index,
                text=steps[index],
                p_marker=after[index],
                score=branch.score,
            )

    def _backtrack(self, branch: Branch, kept: int) -> BacktrackEvent:
        steps = shown_steps(self._codec, branch)
        good = len(steps) - 1
        if branch.outcome is Outcome.BACKTRACK:
            # Counted from what is really kept: a marker in the middle of a step strikes that step,
            # one at its end the step before.
            good = len(self._codec.decode_steps(branch.roll_back(self._codec.tokens).ids))
        return BacktrackEvent(
            branch=branch.node,
            parent=branch.parent_node,
            kept_steps=kept,
            outcome=Outcome.ILLEGAL if branch.outcome is Outcome.ILLEGAL else Outcome.BACKTRACK,
            struck=[StruckStep(index=i, text=text) for i, text in enumerate(steps[good:], good)],
        )

    def _candidate(self, branch: Branch, kept: int) -> CandidateEvent:
        answer = self._answer_of(branch)
        steps = tuple(answer.steps)
        self._votes[steps] += 1
        answer = answer.model_copy(update={"votes": self._votes[steps]})
        return CandidateEvent(
            branch=branch.node,
            parent=branch.parent_node,
            kept_steps=kept,
            answer=answer,
        )
