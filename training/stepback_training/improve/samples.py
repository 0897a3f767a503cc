"""Samples of a round, made from what was solved. Nothing of the test split passes."""

import json
from collections.abc import Iterable, Set
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from pydantic import BaseModel

from stepback_core.errors import InvalidInput
from stepback_training.atomic_files import write_whole
from stepback_training.config import ImproveRecipe, Recipe
from stepback_training.data.control_texts import is_plain
from stepback_training.data.samples import Sample, make_samples, recipe_path
from stepback_training.data.wrong_paths import draw_wrong_step
from stepback_training.generators import GENERATORS, Generator
from stepback_training.improve.outcomes import SearchOutcome, WrongStep
from stepback_training.improve.problems import refuse_held_out
from stepback_training.plugins import judge_of


@dataclass(frozen=True, slots=True)
class SolvedPath:
    """A problem, a checked path to its goal, and wrong steps that the search met on the way."""

    task: Generator[Any]
    problem: BaseModel
    steps: list[str]
    wrong: list[WrongStep]

    def sample(self, prefix: list[str], wrong: str | None = None) -> Sample:
        return Sample(prompt=self.task.checker.prompt(self.problem), steps=prefix, wrong_step=wrong)


class Counts(BaseModel):
    """Training samples of a round."""

    optimal: int = 0
    """Paths that were found by search."""
    backtrack: int = 0
    """Ends in a wrong step, after the beginning of such a path."""
    own_errors: int = 0
    """Ends in a wrong step that the search itself met."""
    old: int = 0
    """Made as `[data]` says."""


def keep(outcomes: Iterable[SearchOutcome]) -> list[SolvedPath]:
    """The solved ones, each way to a problem's goal once: ways that go through the same states are
    one, however their steps are written."""
    found: dict[object, SolvedPath] = {}
    for outcome in outcomes:
        # A lenient checker may pass over control tokens, and training does not.
        if not outcome.solved or not all(map(is_plain, outcome.steps)):
            continue
        task: Generator[Any] = GENERATORS[outcome.task]
        problem = task.checker.problem_type.model_validate(outcome.problem)
        checker = judge_of(task)
        prompt = checker.prompt(problem)
        if not checker.check(problem, outcome.steps).strict:
            raise ValueError(f"{prompt}: the path that was kept is not a right one")
        lengths = range(len(outcome.steps) + 1)
        states = tuple(checker.state_key(problem, outcome.steps[:length]) for length in lengths)
        kept = SolvedPath(task, problem, outcome.steps, outcome.wrong)
        found.setdefault((prompt, states), kept)
    return list(found.values())


def write_mixture(
    recipe: Recipe,
    kept: list[SolvedPath],
    forbidden: Set[str],
    path: Path,
    seed: int,
    counts_path: Path | None = None,
) -> Counts:
    """Write a round's samples in random order; the file appears under its name when it is whole,
    and what they are before it, under `counts_path`.

    `forbidden` are prompts that must not be trained on: those that the run is measured by. Raises
    InvalidInput for a kept problem that is one of these, or outside of the training split, and for
    an own wrong step that ends in a held-out goal.
    """
    improve = recipe.improve or ImproveRecipe()
    rng = Random(seed)
    new, counts = _new_samples(recipe, improve, kept, rng)
    for each in kept:
        refuse_held_out(each.task, each.problem)
        _refuse_held_out_goals(each)
    for sample in new:
        if sample.prompt in forbidden:
            raise InvalidInput(f"{sample.prompt} is one of those that the run is measured by")
    counts.old = round(len(new) * improve.old_share / (1 - improve.old_share))
    fresh = (each for each in make_samples(recipe.data, rng) if each.prompt not in forbidden)
    samples = [*new, *islice(fresh, counts.old)]
    rng.shuffle(samples)
    if counts_path is not None:
        counts_path.parent.mkdir(parents=True, exist_ok=True)
        counts_path.write_text(counts.model_dump_json() + "\n", encoding="utf-8")
    _write(path, samples, recipe)
    return counts


def _refuse_held_out_goals(kept: SolvedPath) -> None:
    for wrong in kept.wrong:
        if kept.task.ends_held_out(kept.problem, [*wrong.prefix, wrong.step]):
            prompt = kept.task.checker.prompt(kept.problem)
            raise InvalidInput(f"{prompt}: {wrong.step} is wrong, and ends in a held-out goal")


def _new_samples(
    recipe: Recipe, improve: ImproveRecipe, kept: list[SolvedPath], rng: Random
) -> tuple[list[Sample], Counts]:
    share = improve.backtrack_share
    share = recipe.data.backtrack_share if share is None else share
    samples = [each.sample(each.steps) for each in kept]
    counts = Counts(optimal=len(samples))
    # A share of 1 leaves nothing to take a share of: as many backtrack as can be had of each.
    wanted = round(len(samples) * min(share / (1 - share), 16.0)) if share < 1 else len(samples)
    for number in range(wanted):
        each = kept[number % len(kept)]
        if improve.wrong_steps == "own" and each.wrong:
            wrong = rng.choice(each.wrong)
            samples.append(each.sample(wrong.prefix, wrong.step))
            counts.own_errors += 1
        elif (invented := _invented(recipe, each, rng)) is not None:
            samples.append(invented)
    counts.backtrack = len(samples) - counts.optimal
    return samples, counts


def _invented(recipe: Recipe, kept: SolvedPath, rng: Random) -> Sample | None:
    prefix = kept.steps[: rng.randrange(len(kept.steps))]
    wrong = draw_wrong_step(kept.task, kept.problem, prefix, recipe.data, rng)
    return None if wrong is None else kept.sample(prefix, wrong)


def _write(path: Path, samples: Iterable[Sample], recipe: Recipe) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # The split rules of [data] hold for these samples too, and the model card says them.
    recipe_path(path).write_text(recipe.data.model_dump_json(indent=2) + "\n", encoding="utf-8")
    plain = (sample.model_dump(exclude_defaults=True) for sample in samples)
    write_whole(path, (json.dumps(each, separators=(",", ":")) + "\n" for each in plain))
