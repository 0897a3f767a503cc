"""Asks a running controller what a plan says, so many problems in flight, and keeps what it says.

Each setting is done before the next begins, so that what it cost is its own. What an earlier
process has kept is not asked again.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stepback_client import AsyncClient, Retry, StepbackError
from stepback_core.wire import Select, Strategy
from stepback_training.evaluate.journal import Journal, JournalError, Key, opened
from stepback_training.evaluate.plan import Asked, Plan, Setting, best_of_n_of
from stepback_training.evaluate.scoring import Interrupted, Outcome, outcome_of

PATIENCE = Retry(attempts=10, first_wait=0.5, longest_wait=30.0)
"""About two minutes: an engine that died is up again by then."""
_AFTER_A_FAILURE = 20.0
"""Seconds that other searches may still take: one that is being tried again may take minutes."""
_SCORE_TOLERANCE = 0.005
"""Nats a token. The same weights differ by less from batch to batch."""


class Stopped(Exception):
    """The evaluation was stopped before its end, by its user or by an error, its cause. What was
    done is kept."""


class WrongController(ValueError):
    """The controller cannot be asked what the plan says."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Every outcome of a plan, and of whom it was asked."""

    plan: Plan
    controller: dict[str, Any]
    """As /version says it."""
    model: dict[str, Any]
    """As /v1/models says it."""
    runs: list[dict[str, Any]]
    settings: list[Setting]
    """The plan's, and those at equal tokens."""
    matches: dict[str, str]
    """Names of settings, and of the best-of-N that generates as much."""
    asked: list[Asked]
    outcomes: dict[Key, Outcome]


async def measure(
    client: AsyncClient,
    plan: Plan,
    path: Path,
    *,
    run: dict[str, Any],
    in_flight: int,
    at_equal_tokens: bool,
    stop: asyncio.Event,
) -> Measured:
    """Ask everything that the journal at `path` does not hold yet, until `stop` is set.

    `run` is what the journal is to say of this process. Raises Stopped, StepbackError where the
    controller cannot even be asked who it is, JournalError and WrongController.
    """
    asked = plan.asked()
    controller, model, greedy = await _get_to_know(client, plan, asked[0])
    identity = {
        "plan": plan.model_dump(mode="json"),
        "problems_sha256": _digest(plan, asked),
        "controller": controller,
        "model": model,
    }
    with opened(path, identity) as journal:
        _check_weights(path, journal, greedy)
        journal.begin_run({**run, "in_flight": in_flight, "greedy": greedy})
        work = _Work(client, plan, asked, journal, stop)
        await work.do(plan.settings, in_flight)
        matches = _matches(plan, journal.outcomes) if at_equal_tokens else {}
        await work.do([*dict.fromkeys(matches.values())], in_flight)
        return Measured(
            plan=plan,
            controller=controller,
            model=model,
            runs=journal.runs,
            settings=[*dict.fromkeys([*plan.settings, *matches.values()])],
            matches={name: setting.name for name, setting in matches.items()},
            asked=asked,
            outcomes=journal.outcomes,
        )


async def _get_to_know(
    client: AsyncClient, plan: Plan, first: Asked
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The controller, its model, and what the model says greedily to the first problem, by which
    other weights under the same name are told apart."""
    model = (await client.models()).data[0]
    if plan.task not in model.tasks:
        known = ", ".join(model.tasks) or "none by name"
        raise WrongController(f"task: the model {model.id} knows {known}, and not {plan.task}")
    result = await client.solve(first.problem, strategy=Strategy.GREEDY, select=Select.PERPLEXITY)
    answer = result.answer
    greedy = {"text": answer.text, "score": answer.score} if answer else {}
    # Asked last: a controller knows its engine's version once an engine was up.
    controller = await client.version()
    return controller.model_dump(mode="json"), model.model_dump(mode="json"), greedy


def _digest(plan: Plan, asked: Sequence[Asked]) -> str:
    """Of the problems: a generator that draws others makes another evaluation."""
    prompts = [plan.the_task.prompt(each.problem) for each in asked]
    return sha256("\n".join(prompts).encode()).hexdigest()


def _check_weights(path: Path, journal: Journal, greedy: dict[str, Any]) -> None:
    """Raises JournalError where the outcomes so far cannot be of the weights that answer now."""
    if not journal.runs:
        return
    begun = journal.runs[0]["greedy"]
    if bool(begun) != bool(greedy) or (
        begun and abs(begun["score"] - greedy["score"]) > _SCORE_TOLERANCE
    ):
        raise JournalError(
            f"{path} was begun with other weights of that name: they answer the first problem "
            f"with {begun or 'nothing'}, now {greedy or 'nothing'}; use another --out"
        )


class _Work:
    """Asks setting after setting, and keeps each outcome as it comes."""

    def __init__(
        self,
        client: AsyncClient,
        plan: Plan,
        asked: Sequence[Asked],
        journal: Journal,
        stop: asyncio.Event,
    ) -> None:
        self._client = client
        self._plan = plan
        self._task = plan.the_task
        self._asked = asked
        self._journal = journal
        self._stop = stop
        self._failure: Exception | None = None
        self._limit = asyncio.timeout(None)

    async def do(self, settings: Sequence[Setting], in_flight: int) -> None:
        """Raises Stopped, once what was in flight has come back, or has taken too long after a
        failure."""
        left = {setting: self._left(setting) for setting in settings}
        total = len(self._asked) * len(settings)
        done = total - sum(map(len, left.values()))
        # None: no bar where nobody looks.
        with tqdm(total=total, initial=done, unit="search", disable=None) as bar:
            for setting, asked in left.items():
                bar.set_description(setting.name)
                jobs = iter(asked)
                with suppress(TimeoutError):  # of the limit, which only `_fail` sets
                    async with asyncio.timeout(None) as self._limit, asyncio.TaskGroup() as group:
                        for _ in range(min(in_flight, len(asked))):
                            group.create_task(self._ask_on(setting, jobs, bar))
                if self._stop.is_set():
                    raise Stopped from self._failure

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
            self._limit.reschedule(asyncio.get_running_loop().time() + _AFTER_A_FAILURE)
        self._stop.set()

    def _left(self, setting: Setting) -> list[Asked]:
        kept = self._journal.outcomes
        return [each for each in self._asked if (setting.name, *each.place) not in kept]

    async def _ask_on(self, setting: Setting, jobs: Iterator[Asked], bar: "tqdm[Any]") -> None:
        """One problem after the other, of those that are left."""
        for asked in jobs:
            if self._stop.is_set():
                return
            try:
                outcome = await self._ask(setting, asked)
            except (StepbackError, Interrupted) as error:
                self._fail(error)
                return
            self._journal.add((setting.name, *asked.place), outcome)
            bar.update()

    async def _ask(self, setting: Setting, asked: Asked) -> Outcome:
        options = setting.request(self._plan.temperature, asked.seed)
        result = await self._client.solve(asked.problem, **options)
        return outcome_of(result, setting.rules, self._task, asked.problem)


def _matches(plan: Plan, outcomes: dict[Key, Outcome]) -> dict[str, Setting]:
    """For each search that the checker did not end, the best-of-N that costs as much."""
    of_a_sample = _tokens_of_a_sample(plan, outcomes)
    searched = (Strategy.SELF_BACKTRACKING, Strategy.BEST_FIRST)
    return {
        setting.name: best_of_n_of(_mean_tokens(setting, outcomes) / of_a_sample)
        for setting in plan.settings
        if setting.strategy in searched and not setting.until_verified
    }


def _tokens_of_a_sample(plan: Plan, outcomes: dict[Key, Outcome]) -> float:
    """Mean tokens of one sample from the prompt, of the largest best-of-N of the plan."""
    best = max(filter(_tells_a_samples_cost, plan.settings), key=lambda each: each.breadth or 0)
    return _mean_tokens(best, outcomes) / (best.breadth or 1)


def _tells_a_samples_cost(setting: Setting) -> bool:
    return (
        setting.strategy is Strategy.BEST_OF_N
        and setting.budget_tokens is None
        and not setting.until_verified
    )


def _mean_tokens(setting: Setting, outcomes: dict[Key, Outcome]) -> float:
    tokens = [each.tokens for (name, *_), each in outcomes.items() if name == setting.name]
    return sum(tokens) / len(tokens)


def check_at_equal_tokens(plan: Plan) -> None:
    """Raises ValueError where the plan does not measure what a sample costs."""
    if not any(map(_tells_a_samples_cost, plan.settings)):
        raise ValueError(
            "at-equal-tokens: needs best_of_n among --strategies, with every candidate and without "
            "a token budget, to know what a sample costs"
        )
