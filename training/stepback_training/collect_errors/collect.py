"""Collects a model's own wrong steps from a running controller, through the client.

The controller samples single paths on problems of the training split, without search; the task
judges each up to its first wrong step. A collection that was cut short goes on where it was.
"""

import asyncio
from collections.abc import Callable
from itertools import islice

from pydantic import BaseModel

from stepback_client import AsyncClient, Select, Strategy
from stepback_training.collect_errors.collection import Collection, Plan, ProblemErrors
from stepback_training.collect_errors.first_error import Judge, Tally
from stepback_training.generators import GENERATORS
from stepback_training.sampling.bounded_gather import ask_each, finished, of_these_weights
from stepback_training.sampling.provenance import this_process


async def collect(
    client: AsyncClient,
    plan: Plan,
    collection: Collection,
    problems: int,
    *,
    digest: str | None,
    in_flight: int,
    stop: asyncio.Event,
    advance: Callable[[int], object],
) -> None:
    """Ask until the collection has the errors of `problems` problems, or `stop` is set; call
    `advance` after each.

    Raises Stopped and StepbackError. The file of errors is written in any case.
    """
    judge = Judge(GENERATORS[plan.task])

    async def ask(numbered: tuple[int, BaseModel]) -> ProblemErrors:
        number, problem = numbered
        result = finished(
            await client.solve(
                problem,
                strategy=Strategy.BEST_OF_N,
                select=Select.PERPLEXITY,
                breadth=plan.samples,
                temperature=plan.temperature,
                seed=(plan.seed * 1_000_003 + number) % 2**31,
                tree=True,
            )
        )
        tally = Tally()
        judged = [judge.judge(problem, node, tally) for node in result.tree or [] if node.id]
        return ProblemErrors(tally=tally, errors=[error for error in judged if error is not None])

    def keep(numbered: tuple[int, BaseModel], outcome: ProblemErrors) -> None:
        collection.add(numbered[0], outcome)
        advance(1)

    numbered = enumerate(islice(plan.problems, problems))
    left = [(number, problem) for number, problem in numbered if not collection.has(number)]
    advance(problems - len(left))
    collection.journal.begin_run({**this_process(), "in_flight": in_flight})
    try:
        async with of_these_weights(client, digest, collection.journal):
            await ask_each(left, ask, keep, in_flight=in_flight, stop=stop)
    finally:
        collection.write()
