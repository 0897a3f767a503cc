"""Collects a model's own wrong steps from a running controller, through the client.

The controller samples single paths on problems of the training split, without search; the task
judges each up to its first wrong step. A collection that was cut short goes on where it was.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import aclosing
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from stepback_client import AsyncClient, Select, SolveResult, Strategy
from stepback_training.collect_errors.collection import Collection, Plan
from stepback_training.collect_errors.first_error import Judge
from stepback_training.generators import GENERATORS

T = TypeVar("T")


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

    Raises CollectionError, ModelErrorsError and StepbackError; what was collected stays.
    """
    collection = Collection.open(path, plan)
    done = collection.progress.problems
    advance(min(done, problems))
    judge = Judge(GENERATORS[plan.task])

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
