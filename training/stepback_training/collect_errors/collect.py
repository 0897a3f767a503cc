"""Collects a model's own wrong steps, from a running controller or a Ray cluster.

Single paths are sampled on problems of the training split, without search; the task judges each
up to its first wrong step. A collection that was cut short goes on where it was.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from itertools import islice

from pydantic import BaseModel

from stepback_client import Select, SolveOptions, Strategy
from stepback_training.collect_errors.collection import Collection, CollectionPlan, ProblemErrors
from stepback_training.collect_errors.first_error import PathJudge, Tally
from stepback_training.generators import GENERATORS
from stepback_training.sampling.bounded_gather import ask_each
from stepback_training.sampling.provenance import this_process
from stepback_training.sampling.searchers import Failed, Search


async def collect(
    searching: AbstractAsyncContextManager[Search],
    plan: CollectionPlan,
    collection: Collection,
    problems: int,
    *,
    in_flight: int,
    stop: asyncio.Event,
    advance: Callable[[int], object],
) -> None:
    """Ask until the collection has the errors of `problems` problems, or `stop` is set; call
    `advance` after each. `searching` is opened where any are left.

    Raises Stopped, StepbackError, and what `searching` raises. The file of errors is written in
    any case.
    """
    numbered = enumerate(islice(plan.problems, problems))
    left = [(number, problem) for number, problem in numbered if not collection.has(number)]
    advance(problems - len(left))
    if not left:
        collection.write()
        return

    def keep(numbered: tuple[int, BaseModel], outcome: ProblemErrors) -> None:
        collection.add(numbered[0], outcome)
        advance(1)

    collection.journal.begin_run({**this_process(), "in_flight": in_flight})
    try:
        async with searching as search:
            ask = partial(_ask, search, plan, PathJudge(GENERATORS[plan.task]))
            await ask_each(left, ask, keep, in_flight=in_flight, stop=stop)
    finally:
        collection.write()


async def _ask(
    search: Search, plan: CollectionPlan, judge: PathJudge, numbered: tuple[int, BaseModel]
) -> ProblemErrors:
    number, problem = numbered
    options = SolveOptions(
        strategy=Strategy.BEST_OF_N,
        select=Select.PERPLEXITY,
        breadth=plan.samples,
        temperature=plan.temperature,
        seed=(plan.seed * 1_000_003 + number) % 2**31,
        tree=True,
    )
    tally = Tally()
    try:
        result = await search(problem, options)
    except Failed as error:
        return ProblemErrors(tally=tally, errors=[], failure=str(error))
    judged = [judge.judge(problem, node, tally) for node in result.tree or [] if node.id]
    return ProblemErrors(tally=tally, errors=[error for error in judged if error is not None])
