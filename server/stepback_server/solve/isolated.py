"""Verdicts of a plug-in's checker on one search: its worker gives them, the search reads them."""

import asyncio
from collections.abc import Hashable, Iterator, Sequence
from contextlib import suppress
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
# Turns below this log-probability are hardly ever taken.
_MIN_LOGPROB = -11.5


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

    def check(self, steps: Sequence[str]) -> Verdict:
        """The verdict on an answer; unverified with the reason if there is none."""
        return self._verdicts.get(tuple(steps)) or _unverified("it gave no verdict in time")

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

        async def learn() -> None:
            await asyncio.gather(self._judge([*answers]), self.look([*states]))

        with suppress(Interrupted):
            await run_unless(learn(), hurry.wait())
        return branches

    async def look(self, states: Sequence[Steps]) -> None:
        """Learn the states after these steps."""
        states = [steps for steps in states if steps not in self._states]
        if states and self._failures["states"] < _MOST_FAILURES:
            try:
                told = await self._ask(states=states)
                self._states |= _keys(states, told.get("states"))
            except CheckerFailure:
                self._failures["states"] += 1

    async def _judge(self, answers: Sequence[Steps]) -> None:
        if not answers:
            return
        if self._failures["answers"] >= _MOST_FAILURES:
            lost = _unverified(f"{_MOST_FAILURES} calls of this search have failed")
            self._verdicts |= dict.fromkeys(answers, lost)
            return
        try:
            told = await self._ask(answers=answers)
            verdicts = list(map(read_verdict, _listed(told.get("verdicts"), len(answers))))
            self._verdicts |= zip(answers, verdicts, strict=True)
        except CheckerFailure as failure:
            if len(answers) > 1:
                # One of them is at fault: the others shall not suffer for it.
                await asyncio.gather(*(self._judge([answer]) for answer in answers))
            else:
                self._failures["answers"] += 1
                self._verdicts[answers[0]] = Verdict(None, None, failure.reason)

    async def _ask(
        self, answers: Sequence[Steps] = (), states: Sequence[Steps] = ()
    ) -> dict[str, Any]:
        call = {"do": "review", "problem": self._problem, "answers": answers, "states": states}
        return await ask(self._checker, call)

    def _steps_to_look_at(self, branch: Branch) -> Iterator[Steps]:
        """Every place at which a search may ask for a state: ends of steps, and turns to one."""
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
    """Return the value of an answer. Raises CheckerFailure, and ApiError for a bad problem."""
    answered = await asyncio.wrap_future(checker.worker.submit(call))
    if "invalid" in answered:
        raise invalid(answered["invalid"], under="problem")
    value = answered.get("value")
    if not isinstance(value, dict):
        raise CheckerFailure(FailureKind.BROKEN, "an answer of another form")
    return cast("dict[str, Any]", value)


def _keys(states: Sequence[Steps], told: Any) -> dict[Steps, str | None]:
    keys = _listed(told, len(states))
    known = [key for key in keys if key is None or isinstance(key, str)]
    return dict(zip(states, _listed(known, len(states)), strict=True))


def _listed(told: Any, count: int) -> list[Any]:
    """A list of this length: a fork that a text has taken over may say anything."""
    if not isinstance(told, list) or len(cast("list[Any]", told)) != count:
        raise CheckerFailure(FailureKind.BROKEN, "an answer of another form")
    return cast("list[Any]", told)


def _unverified(detail: str) -> Verdict:
    return Verdict(None, None, CheckerFailure(FailureKind.UNAVAILABLE, detail).reason)
