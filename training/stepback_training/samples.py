"""Training samples: made from a task, written and read as JSONL.

    {"prompt": "countdown:4,16,25,82=95", "steps": ["16-4=12"], "wrong_step": "25-12=14"}

A sample with a `wrong_step` ends in that step and the marker; one without ends in the end token.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from tqdm import tqdm

from stepback_core.tasks import TASKS, ErrorKind, Split, Task
from stepback_core.validation import first_error
from stepback_training.recipe import DataRecipe

_CHUNK = 2000


class SampleError(ValueError):
    """A line that is not a sample; the message names file, line and field."""


class Sample(BaseModel):
    """One training sample, as text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    steps: list[str]
    wrong_step: str | None = None


def write_samples(recipe: DataRecipe, path: Path, *, processes: int | None = None) -> None:
    """Write `recipe.samples` JSONL lines; the same recipe gives the same bytes with any number of
    processes. The file appears under its name only when it is whole."""
    chunks = range(0, recipe.samples, _CHUNK)
    sizes = [min(_CHUNK, recipe.samples - start) for start in chunks]
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    _recipe_path(path).unlink(missing_ok=True)
    with (
        ProcessPoolExecutor(processes) as pool,
        partial.open("w", encoding="utf-8") as file,
        tqdm(total=recipe.samples, unit="sample", unit_scale=True) as bar,
    ):
        for size, lines in zip(
            sizes, pool.map(_chunk, [recipe] * len(sizes), range(len(sizes)), sizes), strict=True
        ):
            file.write(lines)
            bar.update(size)
    partial.replace(path)
    _recipe_path(path).write_text(recipe.model_dump_json(indent=2) + "\n", encoding="utf-8")


def recipe_of(path: Path) -> DataRecipe | None:
    """The recipe that a file was written by; None for samples from elsewhere."""
    try:
        return DataRecipe.model_validate_json(_recipe_path(path).read_bytes())
    except FileNotFoundError:
        return None


def _recipe_path(path: Path) -> Path:
    return path.with_name(path.name + ".recipe.json")


def read_samples(path: Path) -> Iterator[Sample]:
    """Read JSONL samples one by one. Raises SampleError."""
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield Sample.model_validate_json(line)
            except ValidationError as error:
                what = first_error(error, whole="the line")
                raise SampleError(f"{path}:{number}: {what}") from error


def make_samples(recipe: DataRecipe, rng: Random) -> Iterator[Sample]:
    """Samples without end, from training-split problems alone."""
    task = TASKS[recipe.task]
    for problem in task.stream(Split.TRAIN, rng):
        paths = task.reference_paths(problem)
        path = paths[0] if recipe.paths == "plainest" else rng.choice(paths)
        if rng.random() >= recipe.backtrack_share:
            yield Sample(prompt=task.prompt(problem), steps=path)
            continue
        prefix = path[: rng.randrange(len(path))]
        wrong = _wrong_step(task, problem, prefix, recipe, rng)
        if wrong is not None:
            yield Sample(prompt=task.prompt(problem), steps=prefix, wrong_step=wrong)


def _chunk(recipe: DataRecipe, index: int, size: int) -> str:
    # Seeded by its own index, so that chunks do not depend on which process makes them.
    rng = Random(f"{recipe.seed}:{index}")
    return "".join(_to_line(sample) for sample in islice(make_samples(recipe, rng), size))


def _to_line(sample: Sample) -> str:
    return json.dumps(sample.model_dump(exclude_none=True), separators=(",", ":")) + "\n"


def _wrong_step(
    task: Task[Any], problem: BaseModel, prefix: list[str], recipe: DataRecipe, rng: Random
) -> str | None:
    """A wrong step of a drawn kind; another kind where the drawn one does not exist here."""
    kinds = list(ErrorKind)
    weights = [recipe.errors.get(kind, 0.0) for kind in kinds]
    while any(weights):
        [kind] = rng.choices(kinds, weights)
        wrong = task.wrong_step(problem, prefix, kind, rng)
        if wrong is not None:
            return wrong
        weights[kinds.index(kind)] = 0.0
    return None
