"""Samples of four arms: the same questions in the same order, with other branches.

A training keeps that order where its recipe has `shuffle = false`.

A  the right path of each question alone
B  also wrong steps after beginnings of it, each with the marker
C  the beginnings of B, with neither a wrong step nor a marker
D  the samples of B with each marker moved to a step at random, right or wrong

G  B with invented wrong paths that go on: the marker comes after any of their steps, and half of
   them end in a claim of the goal

Two more are B with wrong steps of its own, which `own_error_rounds` finds:

E  the marker after the first wrong step of a path
F  the marker after any of its wrong steps, the first or a later one
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from stepback_training.atomic_files import write_whole
from stepback_training.config import BaseModelChoice, DataRecipe, Recipe
from stepback_training.data.model_errors import ModelError
from stepback_training.data.samples import Sample
from stepback_training.data.wrong_paths import Mistakes, WrongPath, draw_wrong_step
from stepback_training.generators import Generator, Split

ARMS = ("A", "B", "C", "D")
LATER = "G"
OWN_ERRORS = ("E", "F")
"""Arms that are trained in rounds."""
_GO_ON = {"wrong_steps": {1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0}, "false_claims": 0.5}


def arm_samples(
    arm: str, task: Generator[Any], recipe: DataRecipe, branches: float, seed: int
) -> Iterator[Sample]:
    """Samples without end; `branches` of each question on average, the right path among them."""
    rng, placing = Random(f"{seed}:branches"), Random(f"{seed}:markers")
    mistakes = Mistakes.of(task, recipe.model_copy(update=_GO_ON))
    for problem in questions(task, seed):
        prompt, path = task.checker.prompt(problem), task.reference_paths(problem)[0]
        yield Sample(prompt=prompt, steps=path)
        for _ in range(math.floor(branches - rng.random())):
            if arm == LATER:
                wrong_path = mistakes.draw(problem, path, placing)
                if wrong_path:
                    yield _going_on(wrong_path)
                continue
            # Drawn in every arm, so that questions and branches are the same in all.
            prefix = path[: rng.randrange(len(path))]
            wrong = draw_wrong_step(task, problem, prefix, recipe, rng)
            sample = wrong and _branch(arm, prompt, prefix, wrong, placing)
            if sample:
                yield sample


def questions(task: Generator[Any], seed: int) -> Iterator[Any]:
    """Questions of every arm, in their order and without end."""
    return task.stream(Split.TRAIN, Random(f"{seed}:questions"))


def places_with_a_branch(count: int, branches: float, rng: Random) -> list[int]:
    """Draw which of `count` questions have a branch, each one at most; returns their places."""
    return [place for place in range(count) if branches - rng.random() >= 1]


def samples_of_own_errors(
    arm: str,
    task: Generator[Any],
    asked: Sequence[Any],
    errors: Mapping[int, ModelError | None],
    rng: Random,
) -> Iterator[Sample]:
    """The right path of each question, then a model's own wrong path if there is one in `errors`,
    which are by the question's place."""
    for place, problem in enumerate(asked):
        prompt = task.checker.prompt(problem)
        yield Sample(prompt=prompt, steps=task.reference_paths(problem)[0])
        error = errors.get(place)
        if error is not None:
            later = error.follow_ups[: rng.randrange(len(error.follow_ups) + 1)]
            yield Sample(
                prompt=prompt,
                steps=error.prefix,
                wrong_step=error.wrong_step,
                follow_ups=later if arm == "F" else [],
            )


def _going_on(path: WrongPath) -> Sample:
    wrong, *later = path.wrong_steps
    return Sample(prompt=path.prompt, steps=path.prefix, wrong_step=wrong, follow_ups=later)


def recipe_of_round(recipe: Recipe, before: Path | None, start: float, end: float) -> Recipe:
    """The recipe of a part of a training, from `start` to `end` as shares of it, which goes on from
    the model `before`. Its rate is that of the whole training there.

    Raises ValueError for a rate that cannot be had in parts.
    """
    fit = recipe.train
    if fit.tokens is None or fit.schedule != "wsd":
        raise ValueError("rounds need a recipe with train.tokens and the schedule wsd")
    begins = 1 - fit.decay
    if begins < end < 1:
        raise ValueError(f"rounds need a train.decay within the last of them, and not {fit.decay}")
    falls = max(end - max(start, begins), 0) / (end - start)
    changed = {
        "tokens": round(fit.tokens * (end - start)),
        # A rate that falls in no step cannot be written.
        "decay": falls or 1e-6,
        "warmup_steps": fit.warmup_steps if before is None else 0,
    }
    source: dict[str, Any] = {}
    if before is not None:
        source = {"base": BaseModelChoice(path=str(before)), "scratch": None}
    return recipe.model_copy(update={"train": fit.model_copy(update=changed), **source})


def _branch(arm: str, prompt: str, prefix: list[str], wrong: str, placing: Random) -> Sample | None:
    """A branch of an arm; None for arms without branches here."""
    if arm == "B":
        return Sample(prompt=prompt, steps=prefix, wrong_step=wrong)
    if arm == "C":
        return Sample(prompt=prompt, steps=prefix, beginning=True) if prefix else None
    if arm == "D":
        steps = [*prefix, wrong]
        marked = placing.randrange(len(steps))
        return Sample(prompt=prompt, steps=steps[:marked], wrong_step=steps[marked])
    return None


def write_arm(samples: Iterator[Sample], count: int, path: Path) -> None:
    """Write the first `count` samples, as training reads them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (each.model_dump_json(exclude_defaults=True) + "\n" for each in islice(samples, count))
    write_whole(path, lines)
