"""Arm E of `tests.benchmarks.arms`: arm B in rounds, on wrong steps of its own from the second on.

The first round is the first quarter of B's training, on invented wrong steps. Before the second
quarter, and before the second half, the model so far samples a few paths of each question that is
to have a branch. The task's solver finds the first wrong step of each, and one of them becomes the
branch. So each error is fresh, and is shown once. Questions, right paths and the number of tokens
are B's. A question that every path solves has no branch. The learning rate falls in the last round
alone.
"""

import asyncio
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice, pairwise
from pathlib import Path
from random import Random
from typing import Any

from pydantic import BaseModel

from stepback_core.schemas import SolveRequest
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import Engine
from stepback_server.solve.solver import Solver
from stepback_training.atomic_files import write_whole
from stepback_training.collect_errors.first_error import PathJudge, Tally
from stepback_training.config import BaseModelChoice, Recipe
from stepback_training.data.model_errors import ModelError
from stepback_training.generators import Generator
from stepback_training.train.sft import train
from tests.benchmarks.arm_samples import (
    arm_samples,
    places_with_a_branch,
    questions,
    samples_of_own_errors,
    write_arm,
)
from tests.benchmarks.solving import benchmark_settings, start_engine

_ENDS = (0.0, 0.25, 0.5, 1.0)
"""Where the rounds begin and end, as shares of the whole training."""
_PATHS = 4
"""Paths that are sampled of a question that is to have a branch."""
_TEMPERATURE = 0.7
_NEVER = 1e-6
"""The share of a round in which the rate falls, where it must not: of its last step alone."""


def train_in_rounds(
    recipe: Recipe,
    task: Generator[Any],
    folder: Path,
    *,
    samples: int,
    branches: float,
    seed: int,
    in_flight: int,
) -> None:
    """Train arm E into `folder/run`, or go on with it; `samples` is what all rounds may take."""
    last = len(_ENDS) - 2
    before: Path | None = None
    for number, (start, end) in enumerate(pairwise(_ENDS)):
        run = folder / ("run" if number == last else f"round-{number + 1}")
        file = folder / f"samples-{number + 1}.jsonl"
        if not (run / "model").exists():
            if not file.exists():
                count = round(samples * (end - start))
                if before is None:
                    drawn = arm_samples("B", task, recipe.data, branches, seed)
                else:
                    first, after = (round(samples / branches * each) for each in (start, end))
                    asked = list(islice(questions(task, seed), first, after))
                    chosen = places_with_a_branch(len(asked), branches, Random(f"{seed}:{number}"))
                    found, tally = asyncio.run(_own_errors(task, asked, chosen, before, in_flight))
                    told = tally.model_dump_json(indent=2)
                    write_whole(folder / f"paths-{number + 1}.json", [told])
                    drawn = samples_of_own_errors(task, asked, found)
                write_arm(drawn, count, file)
            of_round = _of_round(recipe, before, end - start, falls=number == last)
            # In a process of its own, as its memory is the engine's next.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                pool.submit(train, of_round, file, run).result()
        before = run / "model"


def _of_round(recipe: Recipe, before: Path | None, share: float, *, falls: bool) -> Recipe:
    """The recipe of a round. The rate of the last one falls all along, as in the second half of a
    training whose `decay` is 0.5."""
    fit = recipe.train
    if fit.tokens is None or fit.schedule != "wsd":
        raise ValueError("rounds need a recipe with train.tokens and the schedule wsd")
    decay = min(1.0, fit.decay / share) if falls else _NEVER
    changed = fit.model_copy(update={"tokens": round(fit.tokens * share), "decay": decay})
    base = recipe.base if before is None else BaseModelChoice(path=str(before))
    scratch = recipe.scratch if before is None else None
    return recipe.model_copy(update={"train": changed, "base": base, "scratch": scratch})


async def _own_errors(
    task: Generator[Any], asked: Sequence[BaseModel], chosen: Sequence[int], model: Path, most: int
) -> tuple[dict[int, ModelError | None], Tally]:
    """A wrong step of the model for each chosen place, None where no path went wrong; and how all
    paths ended."""
    checkpoint = Checkpoint.open(model)
    solver = Solver(checkpoint, benchmark_settings())
    engine: Engine = start_engine(checkpoint, most)
    limit = asyncio.Semaphore(most)
    judge, tally = PathJudge(task), Tally()

    async def ask(place: int) -> ModelError | None:
        problem = asked[place]
        request = SolveRequest.model_validate(
            {
                "prompt": task.checker.prompt(problem),
                "strategy": "best_of_n",
                "breadth": _PATHS,
                "temperature": _TEMPERATURE,
                "seed": place,
                "tree": True,
            }
        )
        async with limit:
            result = await solver.solve(await solver.accept(request), engine, 0.0)
        judged = [judge.judge(problem, node, tally) for node in result.tree or [] if node.id]
        errors = [error for error in judged if error is not None]
        return Random(place).choice(errors) if errors else None

    try:
        found = await asyncio.gather(*(ask(place) for place in chosen))
    finally:
        await engine.close(kill=False)
    return dict(zip(chosen, found, strict=True)), tally
