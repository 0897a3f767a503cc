"""Arms E and F of `tests.benchmarks.arms`: arm B in rounds, from the second on with own errors.

The first round is the first quarter of B's training, on invented wrong steps. Before the second
quarter, and before the second half, the model so far samples a few paths of each question that is
to have a branch. The task's solver finds the first wrong step of each, and one of them becomes the
branch. In arm E the marker comes after that step, in arm F there or after a later step of the same
path. So each error is fresh, and is shown once. A question that every path solves has no branch.

Questions, right paths, the number of tokens, and the learning rate at each of them are B's. Not B's
are where the wrong steps stand and of which kind they are: both are the model's own. Between rounds
the weights are rounded to bfloat16, and the optimizer starts fresh.
"""

import asyncio
import math
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
from stepback_training.config import Recipe
from stepback_training.data.model_errors import ModelError
from stepback_training.data.samples import read_samples
from stepback_training.generators import Generator
from stepback_training.train.sft import train
from tests.benchmarks.arm_samples import (
    arm_samples,
    places_with_a_branch,
    questions,
    recipe_of_round,
    samples_of_own_errors,
    write_arm,
)
from tests.benchmarks.solving import benchmark_settings, start_engine

_ENDS = (0.0, 0.25, 0.5, 1.0)
"""Ends of the rounds, as shares of the whole training; the first is its beginning."""
_PATHS = 4
"""Paths that are sampled of a question that is to have a branch."""
_TEMPERATURE = 0.7
_MORE = 1.2
"""Questions of a round for each that it would have in arm B."""


def train_in_rounds(
    arm: str,
    recipe: Recipe,
    task: Generator[Any],
    folder: Path,
    *,
    samples: int,
    branches: float,
    seed: int,
    in_flight: int,
) -> None:
    """Train an arm into `folder/run`, or go on with it; `samples` is what all rounds may take."""
    if branches > 2:
        raise ValueError("rounds have one wrong path of a question at most: --branches 2 or less")
    last = len(_ENDS) - 2
    before: Path | None = None
    asked_before = 0
    for number, (start, end) in enumerate(pairwise(_ENDS)):
        run = folder / ("run" if number == last else f"round-{number + 1}")
        file = folder / f"samples-{number + 1}.jsonl"
        if not (run / "model").exists():
            if not file.exists():
                count = math.ceil(samples * (end - start))
                if before is None:
                    drawn = arm_samples("B", task, recipe.data, branches, seed)
                else:
                    # Some have no branch, and so more questions are needed for as many tokens.
                    after = asked_before + math.ceil(_MORE * count / branches)
                    asked = list(islice(questions(task, seed), asked_before, after))
                    chosen = places_with_a_branch(len(asked), branches, Random(f"{seed}:{number}"))
                    found, tally = asyncio.run(_own_errors(task, asked, chosen, before, in_flight))
                    told = tally.model_dump_json(indent=2)
                    write_whole(folder / f"paths-{number + 1}.json", [told])
                    ends = Random(f"{seed}:{number}:ends")
                    drawn = samples_of_own_errors(arm, task, asked, found, ends)
                    count = 2 * len(asked)
                write_arm(drawn, count, file)
            of_round = recipe_of_round(recipe, before, start, end)
            # In a process of its own, as its memory is the engine's next.
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                pool.submit(train, of_round, file, run).result()
        asked_before += sum(not sample.wrong_steps for sample in read_samples(file))
        before = run / "model"


async def _own_errors(
    task: Generator[Any], asked: Sequence[BaseModel], chosen: Sequence[int], model: Path, most: int
) -> tuple[dict[int, ModelError | None], Tally]:
    """A wrong step of the model for each chosen place, or None if every path there is right. With
    it a tally of how all paths ended."""
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
