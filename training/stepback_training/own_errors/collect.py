"""Collects a model's own wrong steps from a running controller, through the client.

The controller samples single paths on problems of the training split, without search; the task
judges each up to its first wrong step. One file and, beside it, how far it has got: a collection
that was cut short goes on where it was.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from stepback_client import AsyncClient, Select, SolveResult, Strategy, TreeNode
from stepback_core.tasks import TASKS, ErrorKind, Reason, Split, Task
from stepback_core.tasks.judging import Mistake, first_mistake
from stepback_core.wire import Outcome
from stepback_training.own_errors.record import OwnError, is_teachable, read_own_errors

T = TypeVar("T")


class CollectionError(ValueError):
    """A collection that cannot go on where it was; the message says what to do."""


class Plan(BaseModel):
    """What is asked, of which model. A file belongs to one plan."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    options: dict[str, JsonValue] = {}
    """Of the task's generator."""
    samples: int = Field(gt=0)
    """Paths a problem."""
    temperature: float = Field(gt=0, le=2, allow_inf_nan=False)
    seed: int
    model: str
    """The served model's name."""

    @property
    def problems(self) -> Iterator[BaseModel]:
        """Of the training split, without end. Raises pydantic's ValidationError for bad options."""
        task = TASKS[self.task].with_options(self.options)
        return task.stream(Split.TRAIN, Random(f"errors:{self.seed}"))


class Tally(BaseModel):
    """What the paths so far were."""

    model_config = ConfigDict(extra="forbid")

    paths: int = 0
    solved: int = 0
    errors: dict[ErrorKind, int] = {}
    """Paths by the kind of their first wrong step."""
    noticed: dict[ErrorKind, int] = {}
    """Of these, how many had the marker straight behind that step."""
    false_alarms: int = 0
    """Paths that end in the marker behind right steps."""
    unended: int = 0
    """Paths without a wrong step that end too soon, or were cut."""


class _Progress(BaseModel):
    """Beside the file: what it belongs to, and how much of it is whole."""

    model_config = ConfigDict(extra="forbid")

    plan: Plan
    problems: int = 0
    size: int = 0
    """Bytes of the file."""
    tally: Tally = Tally()


@dataclass(slots=True)
class Collection:
    """The file, open at its end, and what it holds."""

    path: Path
    progress: _Progress
    keys: set[tuple[Any, ...]] = field(default_factory=set[tuple[Any, ...]])

    @classmethod
    def open(cls, path: Path, plan: Plan) -> "Collection":
        """Begin a file, or go on with it. Raises CollectionError where it belongs to another plan,
        and OwnErrorsError where it has been changed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        size = path.stat().st_size if path.exists() else 0
        if not _beside(path).exists():
            if size:
                raise CollectionError(f"{path} is there, and is no collection: use another file")
            begun = cls(path, _Progress(plan=plan))
            begun._say_so()
            return begun
        progress = _Progress.model_validate_json(_beside(path).read_bytes())
        if progress.plan != plan and progress.problems:
            raise CollectionError(
                f"{path} was begun with {progress.plan!r}: go on with that, or use another file"
            )
        if size < progress.size:
            raise CollectionError(f"{path} has been cut: use another file")
        # What a killed process wrote past its last whole problem comes again.
        with path.open("ab") as file:
            file.truncate(progress.size)
        resumed = progress.model_copy(update={"plan": plan})
        return cls(path, resumed, {error.key for error in read_own_errors(path)})

    def add(self, errors: list[OwnError], tally: Tally) -> None:
        """Append what is new of one problem's errors, then say so beside the file."""
        new = [error for error in _distinct(errors) if error.key not in self.keys]
        with self.path.open("ab") as file:
            file.write(b"".join(e.model_dump_json().encode() + b"\n" for e in new))
        self.keys.update(error.key for error in new)
        self.progress.problems += 1
        self.progress.size = self.path.stat().st_size
        self.progress.tally = tally
        self._say_so()

    def _say_so(self) -> None:
        beside = _beside(self.path)
        partial = beside.with_name(beside.name + ".partial")
        partial.write_text(self.progress.model_dump_json(indent=2) + "\n", encoding="utf-8")
        partial.replace(beside)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".progress.json")


def _distinct(errors: list[OwnError]) -> list[OwnError]:
    return list({error.key: error for error in reversed(errors)}.values())[::-1]


async def collect(
    client: AsyncClient,
    plan: Plan,
    path: Path,
    problems: int,
    *,
    in_flight: int,
    advance: Callable[[int], object],
) -> Collection:
    """Ask until the file has the errors of so many problems; `advance` hears of each.

    Raises CollectionError, OwnErrorsError and StepbackError; what was collected stays.
    """
    collection = Collection.open(path, plan)
    done = collection.progress.problems
    advance(min(done, problems))
    judge = Judge(TASKS[plan.task])

    async def ask(number: int, problem: BaseModel) -> tuple[BaseModel, SolveResult]:
        return problem, await client.solve(
            problem,
            strategy=Strategy.BEST_OF_N,
            select=Select.PERPLEXITY,
            breadth=plan.samples,
            temperature=plan.temperature,
            seed=(plan.seed * 1_000_003 + number) % 2**31,
            tree=True,
        )

    asked = enumerate(islice(plan.problems, done, problems), start=done)
    async with aclosing(_in_order((ask(*each) for each in asked), in_flight)) as results:
        async for problem, result in results:
            tally = collection.progress.tally.model_copy(deep=True)
            errors = [judge.judge(problem, node, tally) for node in result.tree or [] if node.id]
            collection.add([error for error in errors if error is not None], tally)
            advance(1)
    return collection


async def _in_order(calls: Iterator[Coroutine[Any, Any, T]], in_flight: int) -> AsyncGenerator[T]:
    """The results in the order of the calls, of which so many run at a time."""
    running: deque[asyncio.Task[T]] = deque()
    try:
        for call in calls:
            running.append(asyncio.create_task(call))
            if len(running) == in_flight:
                yield await running.popleft()
        while running:
            yield await running.popleft()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class Judge:
    """Tells what a task makes of sampled paths."""

    def __init__(self, task: Task[Any]) -> None:
        self._task = task

    def count(self, problem: BaseModel, node: TreeNode, tally: Tally) -> Mistake | None:
        """Count one path; its first wrong step, where there is one."""
        tally.paths += 1
        steps = self._whole_steps(problem, node)
        mistake = first_mistake(self._task, problem, steps)
        if mistake is not None:
            kind = mistake.kind
            tally.errors[kind] = tally.errors.get(kind, 0) + 1
            tally.noticed[kind] = tally.noticed.get(kind, 0) + _is_noticed(node, steps, mistake)
        elif node.outcome is Outcome.ANSWER and self._task.check(problem, steps).strict:
            tally.solved += 1
        elif node.outcome is Outcome.BACKTRACK:
            tally.false_alarms += 1
        else:
            tally.unended += 1
        return mistake

    def judge(self, problem: BaseModel, node: TreeNode, tally: Tally) -> OwnError | None:
        """Count one path of a training problem; its first wrong step, where it may be taught."""
        mistake = self.count(problem, node, tally)
        steps = self._whole_steps(problem, node)
        if mistake is None or not is_teachable(self._task, problem, steps[: mistake.index + 1]):
            return None
        return OwnError(
            task=self._task.name,
            problem=problem.model_dump(mode="json"),
            prefix=steps[: mistake.index],
            wrong_step=steps[mistake.index],
            follow_ups=self._teachable(problem, steps, mistake.index + 1),
            kind=mistake.kind,
            noticed=_is_noticed(node, steps, mistake),
        )

    def _whole_steps(self, problem: BaseModel, node: TreeNode) -> list[str]:
        """The steps that have ended. The last one of a path that was cut has not, as a rule; nor
        has one that the marker broke off, which then is no step."""
        if node.outcome is Outcome.UNFINISHED:
            return node.steps[:-1]
        if node.outcome is Outcome.BACKTRACK and node.steps:
            *before, last = node.steps
            try:
                if self._task.check_step(problem, before, last) is Reason.MALFORMED_STEP:
                    return before
            except ValueError:
                return node.steps
        return node.steps

    def _teachable(self, problem: BaseModel, steps: list[str], first: int) -> list[str]:
        """The follow-ups from the first on, as far as they may stand in training data."""
        ends = range(first + 1, len(steps) + 1)
        end = next((e - 1 for e in ends if not is_teachable(self._task, problem, steps[:e])), None)
        return steps[first:end]


def _is_noticed(node: TreeNode, steps: list[str], mistake: Mistake) -> bool:
    return node.outcome is Outcome.BACKTRACK and mistake.index == len(steps) - 1


def summary(tally: Tally) -> str:
    """What the paths were, in lines of text."""
    total = max(1, tally.paths)
    lines = [f"{tally.paths} paths: {100 * tally.solved / total:.1f} % solve their problem"]
    for kind, count in tally.errors.items():
        seen = 100 * tally.noticed.get(kind, 0) / count
        share = 100 * count / total
        lines.append(f"{share:.1f} % first go wrong by {kind}; the marker follows {seen:.1f} %")
    alarms, unended = 100 * tally.false_alarms / total, 100 * tally.unended / total
    lines.append(f"{alarms:.1f} % have the marker behind right steps, {unended:.1f} % do not end")
    return "\n".join(lines)
