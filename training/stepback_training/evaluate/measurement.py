"""Runs a plan on a controller, a bounded number of problems in flight, and journals each outcome.

Each setting is done before the next begins, so that what it cost is its own. What an earlier
process has kept is not asked again.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stepback_client import AsyncClient
from stepback_core.errors import InvalidInput
from stepback_core.schemas import Select, Strategy
from stepback_training.evaluate.plan import Plan, Setting, best_of_n_of
from stepback_training.evaluate.scoring import ProblemOutcome, outcome_of
from stepback_training.plugins import judge_of
from stepback_training.sampling.bounded_gather import ask_each, finished, of_these_weights
from stepback_training.sampling.journal import Journal, Key, opened
from stepback_training.sampling.problems import Question, digest_of

# Nats a token. The same weights differ by less from batch to batch.
_SCORE_TOLERANCE = 0.005


@dataclass(frozen=True, slots=True)
class Measured:
    """Every outcome of a plan, and the server and model that gave it."""

    plan: Plan
    controller: dict[str, Any]
    """Answer of /version."""
    model: dict[str, Any]
    """Entry of /v1/models."""
    runs: list[dict[str, Any]]
    settings: list[Setting]
    """The plan's, and those at equal tokens."""
    matches: dict[str, str]
    """Names of settings, and of the best-of-N that generates as much."""
    asked: list[Question]
    outcomes: dict[Key, ProblemOutcome]


async def measure(
    client: AsyncClient,
    plan: Plan,
    asked: list[Question],
    path: Path,
    *,
    run: dict[str, Any],
    in_flight: int,
    at_equal_tokens: bool,
    stop: asyncio.Event,
) -> Measured:
    """Ask each problem what the journal at `path` does not hold yet, until `stop` is set.

    `run` is what the journal is to say of this process. Raises Stopped, StepbackError where the
    controller cannot be asked or served other weights meanwhile, and InvalidInput.
    """
    controller, model, greedy = await _get_to_know(client, plan, asked[0])
    identity = {
        # Left out where it says nothing: journals older than the field go on.
        "plan": plan.model_dump(mode="json", exclude=None if plan.source else {"source"}),
        "problems_sha256": digest_of(asked),
        # First: where both differ, it is the weights that the user should hear of.
        "model": model,
        "controller": controller,
    }
    with opened(path, identity, ProblemOutcome) as journal:
        if model["digest"] is None:
            _check_weights(path, journal, greedy)
        journal.begin_run({**run, "in_flight": in_flight, "greedy": greedy})
        work = _Work(client, plan, asked, journal, in_flight, stop)
        async with of_these_weights(client, model["digest"], journal):
            await work.do(plan.settings)
            matches = _matches(plan, journal.outcomes) if at_equal_tokens else {}
            await work.do([*dict.fromkeys(matches.values())])
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
    client: AsyncClient, plan: Plan, first: Question
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The controller, its model, and what the model says greedily to the first problem."""
    model = (await client.models()).data[0]
    if plan.task not in model.tasks:
        known = ", ".join(model.tasks) or "none by name"
        raise InvalidInput(f"task: the model {model.id} knows {known}, and not {plan.task}")
    result = await client.solve(first.problem, strategy=Strategy.GREEDY, select=Select.PERPLEXITY)
    answer = result.answer
    greedy = {"text": answer.text, "score": answer.score} if answer else {}
    # Asked last: a controller knows its engine's version once an engine was up.
    controller = await client.version()
    return controller.model_dump(mode="json"), model.model_dump(mode="json"), greedy


def _check_weights(path: Path, journal: Journal[ProblemOutcome], greedy: dict[str, Any]) -> None:
    """Raises InvalidInput where the outcomes so far cannot be of the weights that answer now: for
    a controller that does not tell the digest of its weights."""
    if not journal.runs:
        return
    begun = journal.runs[0]["greedy"]
    if bool(begun) != bool(greedy) or (
        begun and abs(begun["score"] - greedy["score"]) > _SCORE_TOLERANCE
    ):
        raise InvalidInput(
            f"{path} was begun with other weights of that name: they answer the first problem "
            f"with {begun or 'nothing'}, now {greedy or 'nothing'}; begin another"
        )


class _Work:
    """Asks setting after setting, and keeps each outcome as it comes."""

    def __init__(
        self,
        client: AsyncClient,
        plan: Plan,
        asked: Sequence[Question],
        journal: Journal[ProblemOutcome],
        in_flight: int,
        stop: asyncio.Event,
    ) -> None:
        self._client = client
        self._plan = plan
        self._asked = asked
        self._journal = journal
        self._in_flight = in_flight
        self._stop = stop

    async def do(self, settings: Sequence[Setting]) -> None:
        """Raises Stopped."""
        left = {setting: self._left(setting) for setting in settings}
        total = len(self._asked) * len(settings)
        done = total - sum(map(len, left.values()))
        # None: no bar where the output is no terminal.
        with tqdm(total=total, initial=done, unit="search", disable=None) as bar:
            for setting, questions in left.items():
                bar.set_description(setting.name)
                await ask_each(
                    questions,
                    partial(self._ask, setting),
                    partial(self._keep, setting, bar),
                    in_flight=self._in_flight,
                    stop=self._stop,
                )

    def _left(self, setting: Setting) -> list[Question]:
        kept = self._journal.outcomes
        return [each for each in self._asked if _key(setting, each) not in kept]

    async def _ask(self, setting: Setting, question: Question) -> ProblemOutcome:
        options = setting.request(self._plan.temperature, question.seed(self._plan.seed))
        result = finished(await self._client.solve(question.problem, **options))
        return outcome_of(result, setting.rules, judge_of(question.task), question.problem)

    def _keep(
        self, setting: Setting, bar: "tqdm[Any]", question: Question, outcome: ProblemOutcome
    ) -> None:
        self._journal.add(_key(setting, question), outcome)
        bar.update()


def _key(setting: Setting, question: Question) -> Key:
    return setting.name, question.split, question.number


def _matches(plan: Plan, outcomes: dict[Key, ProblemOutcome]) -> dict[str, Setting]:
    """Match each search that the checker did not end with the best-of-N that costs as much."""
    of_a_sample = _tokens_of_a_sample(plan, outcomes)
    searched = (Strategy.SELF_BACKTRACKING, Strategy.BEST_FIRST)
    return {
        setting.name: best_of_n_of(_mean_tokens(setting, outcomes) / of_a_sample)
        for setting in plan.settings
        if setting.strategy in searched and not setting.until_verified
    }


def _tokens_of_a_sample(plan: Plan, outcomes: dict[Key, ProblemOutcome]) -> float:
    """Mean tokens of one sample from the prompt, of the largest best-of-N of the plan."""
    best = max(filter(_tells_a_samples_cost, plan.settings), key=lambda each: each.breadth or 0)
    return _mean_tokens(best, outcomes) / (best.breadth or 1)


def _tells_a_samples_cost(setting: Setting) -> bool:
    return (
        setting.strategy is Strategy.BEST_OF_N
        and setting.budget_tokens is None
        and not setting.until_verified
    )


def _mean_tokens(setting: Setting, outcomes: dict[Key, ProblemOutcome]) -> float:
    tokens = [each.tokens for (name, *_), each in outcomes.items() if name == setting.name]
    return sum(tokens) / len(tokens)


def check_at_equal_tokens(plan: Plan) -> None:
    """Raises ValueError where the plan does not measure what a sample costs."""
    if not any(map(_tells_a_samples_cost, plan.settings)):
        raise ValueError(
            "at-equal-tokens: needs best_of_n among --strategies, with every candidate and without "
            "a token budget, to know what a sample costs"
        )
