"""Problems to outcomes, through the controller: so many in flight, each paid once."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from tqdm import tqdm

from stepback_client import AsyncClient, Retry, SolveResult
from stepback_client.base import SolveOptions
from stepback_core.tasks import Reason, Task
from stepback_core.wire import Outcome as Ended
from stepback_core.wire import TreeNode
from stepback_training.improve.ledger import Ledger, Outcome, WrongStep
from stepback_training.improve.problems import Question, seed_of

_PATIENT = Retry(attempts=8, longest_wait=30.0)
"""An engine that is lost comes back within seconds, and the round should outlast that."""
_WRONG_STEPS = 4
"""Kept of one problem, or the hard ones would be most of the samples."""


class WeightsChanged(Exception):
    """The controller serves other weights than those that are asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """Where to ask, and how much at once."""

    url: str
    api_key: str | None
    in_flight: int

    def client(self) -> AsyncClient:
        return AsyncClient(self.url, api_key=self.api_key, retry=_PATIENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How to search."""

    options: SolveOptions
    seed: int
    keeps_errors: bool = False
    """Whether to note the wrong steps that the search met."""


async def ask(
    client: AsyncClient,
    in_flight: int,
    questions: Sequence[Question],
    way: Way,
    ledger: Ledger,
    *,
    title: str,
) -> None:
    """Ask what the ledger does not have yet. Raises StepbackError; what came until then is kept."""
    waiting = [question for question in questions if question.number not in ledger]
    queue = iter(waiting)

    async def work(bar: "tqdm[Any]") -> None:
        for question in queue:
            ledger.add(await _outcome(client, question, way))
            bar.update()

    with tqdm(total=len(questions), initial=len(questions) - len(waiting), desc=title) as bar:
        workers = [asyncio.ensure_future(work(bar)) for _ in range(min(in_flight, len(waiting)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for each in workers:
                each.cancel()
            await asyncio.gather(*workers, return_exceptions=True)


async def _outcome(client: AsyncClient, question: Question, way: Way) -> Outcome:
    result = await client.solve(
        question.problem,
        **way.options,
        seed=seed_of(way.seed, question.number),
        tree=way.keeps_errors,
    )
    steps = result.answer.steps if result.answer else []
    # Judged here, not only there: what is trained on must not hang on another's version.
    solved = bool(steps) and question.task.check(question.problem, steps).strict
    return Outcome(
        number=question.number,
        task=question.task.name,
        problem=question.problem.model_dump(mode="json"),
        solved=solved,
        steps=steps,
        wrong=_errors(question, steps, result) if solved else [],
        tokens=result.usage.generated_tokens,
    )


def _errors(question: Question, steps: list[str], result: SolveResult) -> list[WrongStep]:
    found = wrong_steps(question.task, question.problem, steps, result.tree or ())
    return found[:_WRONG_STEPS]


def wrong_steps(
    task: Task[Any], problem: BaseModel, path: Sequence[str], tree: Iterable[TreeNode]
) -> list[WrongStep]:
    """The illegal steps of a search's tree where it was right so far: in a state that `path`, which
    is correct, goes through. Each once. A text that is no step at all teaches nothing."""
    right = {task.state_key(problem, path[:length]) for length in range(len(path))}
    whole: dict[int, list[str]] = {}
    found: dict[tuple[str, ...], WrongStep] = {}
    for node in tree:
        parent = whole.get(node.parent, []) if node.parent is not None else []
        steps = whole[node.id] = [*parent[: node.kept_steps], *node.steps]
        # The last step of a branch that was cut may be half of one.
        told = steps[:-1] if node.outcome is Ended.UNFINISHED else steps
        wrong = _first_illegal(task, problem, told)
        if wrong is not None and task.state_key(problem, wrong.prefix) in right:
            found.setdefault((*wrong.prefix, wrong.step), wrong)
    return list(found.values())


def _first_illegal(task: Task[Any], problem: BaseModel, steps: Sequence[str]) -> WrongStep | None:
    for index, step in enumerate(steps):
        reason = task.check_step(problem, steps[:index], step)
        if reason is Reason.MALFORMED_STEP:
            return None
        if reason is not None:
            return WrongStep(prefix=list(steps[:index]), step=step)
    return None
