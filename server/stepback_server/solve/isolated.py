"""Verdicts of a plug-in's checker on one search: its worker gives them, the search reads them."""

import asyncio
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

from stepback_core.isolation import CheckerFailure, FailureKind, IsolatedChecker
from stepback_core.isolation.checker import read_verdict
from stepback_core.schemas import Outcome
from stepback_core.tasks import Verdict
from stepback_core.trace import TraceCodec
from stepback_server.concurrency import Interrupted, run_unless
from stepback_server.errors import invalid
from stepback_server.search.tree import Branch

Steps = tuple[str, ...]

# A search that loses more calls than this asks no more: each may take seconds of the worker's.
_MOST_FAILURES = 4
_LOST = CheckerFailure(
    FailureKind.UNAVAILABLE, f"{_MOST_FAILURES} calls of this search have failed"
)
_LATE = CheckerFailure(FailureKind.UNAVAILABLE, "it gave no verdict in time")
_LARGEST_PICTURE = 16_384
# Turns below this log-probability are hardly ever taken.
_MIN_LOGPROB = -11.5


@dataclass(frozen=True, slots=True)
class _Reply:
    """Answer of one call, whether or not it came to its end."""

    verdicts: Sequence[Verdict]
    """Verdicts on the first answers, in their order."""
    states: Mapping[Steps, str | None] = field(default_factory=dict[Steps, str | None])
    failure: CheckerFailure | None = None


class IsolatedReview:
    """The verdicts and states of one problem, as far as the worker has given them.

    The search awaits `appraise` with new branches; then `check` and `state` know theirs. A failure
    leaves an answer unverified, and a state like no other.
    """

    def __init__(
        self, checker: IsolatedChecker, problem: dict[str, Any], codec: TraceCodec
    ) -> None:
        self._checker = checker
        self._problem = problem
        self._codec = codec
        self._ends = frozenset(codec.tokens.separator_ids) | {codec.tokens.end_id}
        self._verdicts: dict[Steps, Verdict] = {}
        self._states: dict[Steps, str | None] = {}
        # Apart: a checker whose `state_key` fails may still judge answers.
        self._failures = {"answers": 0, "states": 0}

    @property
    def is_lost(self) -> bool:
        """True once too many checks have failed: no answer of this search is judged any more."""
        return self._failures["answers"] >= _MOST_FAILURES

    def check(self, steps: Sequence[str]) -> Verdict:
        """The verdict on an answer; unverified with the reason if there is none."""
        return self._verdicts.get(tuple(steps)) or Verdict(None, None, _LATE.reason)

    def state(self, ids: Sequence[int]) -> Hashable | None:
        """The state after generated ids, as `search.strategy.StateView` says."""
        steps = tuple(self._codec.ended_steps(ids))
        # The steps themselves are equal to no other state, so nothing is merged or dropped.
        return self._states.get(steps, steps)

    async def appraise(self, branches: Sequence[Branch], hurry: asyncio.Event) -> Sequence[Branch]:
        """Learn what the worker says of the branches; at once when the event is set."""
        # A dict, for its order: the worker is asked in the same order each time.
        answers = {
            steps: None
            for branch in branches
            if branch.outcome is Outcome.ANSWER
            and (steps := tuple(self._codec.decode_steps(branch.ids))) not in self._verdicts
        }
        states = dict[Steps, None]()
        if self._checker.knows_states:
            for branch in branches:
                states |= dict.fromkeys(self._steps_to_look_at(branch))

        with suppress(Interrupted):
            await run_unless(self._learn([*answers], [*states]), hurry.wait())
        return branches

    async def look(self, states: Sequence[Steps]) -> None:
        """Learn the states after these steps."""
        await self._learn([], states)

    async def picture(self, steps: Sequence[str]) -> str | None:
        """Draw an answer; None if its task does not, or fails to."""
        if not self._checker.draws or self.is_lost:
            return None
        call = {"do": "picture", "problem": self._problem, "steps": steps}
        try:
            drawn = (await ask(self._checker, call))["value"].get("picture")
        except CheckerFailure:
            return None
        is_text = isinstance(drawn, str) and 0 < len(drawn) <= _LARGEST_PICTURE
        return "".join(map(_printable, drawn)) if is_text else None

    async def _learn(self, answers: Sequence[Steps], states: Sequence[Steps]) -> None:
        """Ask for all of it in one call, and again for the answers that a failure has left."""
        while True:
            if self.is_lost:
                self._leave_unverified(answers, _LOST)
                answers = ()
            states = self._unknown(states)
            if not answers and not states:
                return
            reply = await self._reply(answers, states)
            self._verdicts |= zip(answers, reply.verdicts, strict=False)
            self._states |= reply.states
            answers = answers[len(reply.verdicts) :]
            if reply.failure is None or not answers:
                self._failures["states"] += reply.failure is not None
                return
            # A call that has come some way had the limits of a call for several answers.
            if not reply.verdicts:
                answers = self._blame(answers, reply.failure)

    def _blame(self, answers: Sequence[Steps], failure: CheckerFailure) -> Sequence[Steps]:
        """Count a failure at the first of the answers. Returns those to ask for again."""
        self._failures["answers"] += 1
        is_nobodys = failure.kind is FailureKind.UNAVAILABLE
        at_fault = answers if is_nobodys else answers[:1]
        self._leave_unverified(at_fault, failure)
        return answers[len(at_fault) :]

    def _leave_unverified(self, answers: Sequence[Steps], failure: CheckerFailure) -> None:
        self._verdicts |= dict.fromkeys(answers, Verdict(None, None, failure.reason))

    def _unknown(self, states: Sequence[Steps]) -> Sequence[Steps]:
        if self._failures["states"] >= _MOST_FAILURES:
            return ()
        return [steps for steps in states if steps not in self._states]

    async def _reply(self, answers: Sequence[Steps], states: Sequence[Steps]) -> "_Reply":
        call = {"do": "review", "problem": self._problem, "answers": answers, "states": states}
        try:
            answered = await ask(self._checker, call)
            verdicts = _listed(answered.get("verdicts"), len(answers))
            keys = _keys(states, answered["value"].get("states"))
            return _Reply([read_verdict(each) for each in verdicts], keys)
        except CheckerFailure as failure:
            return _Reply(_readable(failure.verdicts), failure=failure)

    def _steps_to_look_at(self, branch: Branch) -> Iterator[Steps]:
        """Every place at which a search may need a state: ends of steps, and turns to one."""
        begin, decode = len(branch.state.ids), self._codec.ended_steps
        for length in range(begin + 1, len(branch.ids) + 1):
            if branch.ids[length - 1] in self._ends:
                yield tuple(decode(branch.ids[:length]))
        for place, others in enumerate(branch.sample.alternatives):
            for token, logprob in others:
                if token in self._ends and logprob > _MIN_LOGPROB:
                    # Best-first search looks at a turn before it takes it, and cannot wait for a
                    # worker then.
                    yield tuple(decode((*branch.ids[: begin + place], token)))


async def ask(checker: IsolatedChecker, call: dict[str, Any]) -> dict[str, Any]:
    """Return an answer, whose value is an object. Raises CheckerFailure, and ApiError for a bad
    problem."""
    answered = await asyncio.wrap_future(checker.worker.submit(call))
    if "invalid" in answered:
        raise invalid(answered["invalid"], under="problem")
    if not isinstance(answered.get("value"), dict):
        raise CheckerFailure(FailureKind.BROKEN, "an answer of another form")
    return answered


def _readable(told: Sequence[object]) -> list[Verdict]:
    """The verdicts up to the first that is none."""
    verdicts = list[Verdict]()
    with suppress(CheckerFailure):
        for each in told:
            verdicts.append(read_verdict(each))
    return verdicts


def _printable(sign: str) -> str:
    """A sign that no terminal takes for a command: it may be a text's."""
    return sign if sign.isprintable() or sign == "\n" else "\N{REPLACEMENT CHARACTER}"


def _keys(states: Sequence[Steps], told: Any) -> dict[Steps, str | None]:
    keys = _listed(told, len(states))
    known = [key for key in keys if key is None or isinstance(key, str)]
    return dict(zip(states, _listed(known, len(states)), strict=True))


def _listed(told: Any, count: int) -> list[Any]:
    """A list of this length: a fork that a text has taken over may say anything."""
    if not isinstance(told, list) or len(cast("list[Any]", told)) != count:
        raise CheckerFailure(FailureKind.BROKEN, "an answer of another form")
    return cast("list[Any]", told)
