"""Training samples: made from tasks and traces, written and read as JSONL.

    {"prompt": "countdown:4,16,25,82=95", "steps": ["16-4=12"], "wrong_step": "25-12=14"}

A sample with a `wrong_step` ends in that step, in the `follow_ups` that take it at its word if
there are any, and the marker; one without ends in the end token, unless it is a `beginning`.
"""

import json
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from itertools import islice
from math import floor
from pathlib import Path
from random import Random
from textwrap import shorten
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator
from tqdm import tqdm

from stepback_client.batch import json_lines
from stepback_core.errors import InvalidInput
from stepback_core.trace import Grammar
from stepback_core.validation import first_error
from stepback_training.atomic_files import refuse_device
from stepback_training.config import DataRecipe, Source
from stepback_training.cores import usable_cores
from stepback_training.data.model_errors import own_errors_of
from stepback_training.data.traces import Trace, Traces, read_traces
from stepback_training.data.wrong_paths import Mistakes, WrongPath
from stepback_training.generators import Generator, Split
from stepback_training.plugins import add_plugins

_CHUNK = 2000
_NAMES = TypeAdapter(list[str])
_CHANGED = "changed"
"""In the recipe beside a file: the fields that were given for these samples alone."""


class Sample(BaseModel):
    """One training sample, as text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    steps: list[str]
    wrong_step: str | None = None
    follow_ups: list[str] = []
    """Further wrong steps after the first, all before the marker."""
    beginning: bool = False
    """The steps are the first of a right path, and the rest is left out."""

    @model_validator(mode="after")
    def _ends_in_one_way(self) -> Self:
        if self.follow_ups and self.wrong_step is None:
            raise ValueError("follow_ups: there is no wrong_step that they could follow")
        if self.beginning and self.wrong_step is not None:
            raise ValueError("beginning: a sample with a wrong_step ends in the marker")
        if self.beginning and not self.steps:
            raise ValueError("beginning: without a step there is nothing to learn")
        return self

    @property
    def wrong_steps(self) -> list[str]:
        """Every wrong step, in order; none of a sample that is right to its end."""
        return [] if self.wrong_step is None else [self.wrong_step, *self.follow_ups]


def write_samples(
    recipe: DataRecipe,
    path: Path,
    *,
    changed: Collection[str] = (),
    processes: int | None = None,
) -> None:
    """Write the recipe's samples as JSONL; the same recipe gives the same bytes with any number of
    processes. The file appears under its name only when it is whole.

    `changed` names the fields that are not those of a recipe's file, but were given for these
    samples: a training by that file takes them from here. Raises InvalidInput and OSError.
    """
    # These are read before anything is written, and before processes are forked that need them.
    held_out(recipe)
    own_errors_of(recipe)
    refuse_device(path)
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Before anything is written: a run that is killed must not leave a recipe beside samples of
    # another one.
    recipe_path(path).unlink(missing_ok=True)
    try:
        _write_batches(recipe, partial, processes)
        partial.replace(path)
        written = recipe.model_dump(mode="json") | {_CHANGED: sorted(changed)}
        recipe_path(path).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        partial.unlink(missing_ok=True)  # Gigabytes, maybe, on a disk that is full.
        raise OSError(error.errno, error.strerror, str(path)) from error


def _write_batches(recipe: DataRecipe, file: Path, processes: int | None) -> None:
    with (
        file.open("w", encoding="utf-8") as opened,
        tqdm(total=recipe.samples, unit="sample", unit_scale=True) as bar,
    ):
        for number, lines in _batches(recipe, processes):
            opened.write(lines)
            bar.update(number)


def _batches(recipe: DataRecipe, processes: int | None) -> Iterator[tuple[int, str]]:
    """Numbers of samples, and their lines."""
    if recipe.samples is None:
        for source in recipe.tasks:
            for trace in _traces(source, recipe).training:
                samples = _samples_of(trace)
                if not recipe.backtrack_share:
                    samples = [sample for sample in samples if not sample.wrong_steps]
                yield len(samples), "".join(map(_to_line, samples))
        return
    sizes = [min(_CHUNK, recipe.samples - start) for start in range(0, recipe.samples, _CHUNK)]
    # A process of the pool has loaded no plug-ins where it is not forked.
    with ProcessPoolExecutor(processes or usable_cores(), initializer=add_plugins) as pool:
        # map keeps the order, so that the file is the same with any number of processes.
        chunks = pool.map(_chunk, [recipe] * len(sizes), range(len(sizes)), sizes)
        yield from zip(sizes, chunks, strict=True)


def held_out(recipe: DataRecipe) -> int:
    """Tell how many traces the split keeps out of the samples. Raises InvalidInput."""
    return sum(_traces(source, recipe).held_out for source in recipe.tasks if source.files)


def recipe_of(path: Path) -> DataRecipe | None:
    """The recipe that a file was written by; None for samples from elsewhere. Raises
    InvalidInput."""
    written = _written_beside(path)
    return written and written[0]


def recipe_as_written(path: Path, recipe: DataRecipe) -> DataRecipe:
    """A recipe with what was changed when a file of samples was written by it.

    Raises ValueError for samples of another recipe, and names its fields. Samples from elsewhere
    fit any.
    """
    written = _written_beside(path)
    if written is None:
        return recipe
    found, changed = written
    theirs, ours = (each.model_dump(mode="json") for each in (found, recipe))
    other = [field for field in ours if theirs[field] != ours[field] and field not in changed]
    if other:
        differs = ", ".join(
            f"{name} ({_shown(theirs[name])}, here {_shown(ours[name])})" for name in other
        )
        raise ValueError(
            f"{path} was written by another [data] than this recipe's: {differs}; write it anew, "
            "or train by the recipe that it was written by"
        )
    return found


def _shown(value: Any) -> str:
    """A value on one line, cut short."""
    return shorten(json.dumps(value), 80, placeholder=" ...")


def _written_beside(path: Path) -> tuple[DataRecipe, list[str]] | None:
    """The recipe beside a file of samples, and which fields were changed for these alone."""
    recipe = recipe_path(path)
    try:
        written = dict(json.loads(recipe.read_bytes()))
        changed = _NAMES.validate_python(written.pop(_CHANGED, []))
        return DataRecipe.model_validate(written), changed
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise InvalidInput(f"{recipe}: {first_error(error, whole='the recipe')}") from error
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"{recipe}: it is no recipe; write the samples anew") from error


def recipe_path(path: Path) -> Path:
    """Return the path of the recipe beside a file of samples."""
    return path.with_name(path.name + ".recipe.json")


def read_samples(path: Path) -> Iterator[Sample]:
    """Read JSONL samples one by one. Raises InvalidInput."""
    yield from samples_of(path, json_lines(path))


def samples_of(path: Path, lines: Iterable[bytes], first: int = 1) -> Iterator[Sample]:
    """Samples of a file's lines but empty ones, numbered from `first`. Raises InvalidInput."""
    for number, line in enumerate(lines, start=first):
        if not line.strip():
            continue
        try:
            yield Sample.model_validate_json(line)
        except ValidationError as error:
            what = first_error(error, whole="the line")
            raise InvalidInput(f"{path}:{number}: {what}") from error


def make_samples(recipe: DataRecipe, rng: Random) -> Iterator[Sample]:
    """Samples without end, of the training split alone, from each source by its share."""
    streams = [_stream(source, recipe, rng) for source in recipe.tasks]
    if len(streams) == 1:
        # Nothing is drawn for a choice that is none, so a single task's samples stay as they were.
        yield from streams[0]
    shares = [source.share for source in recipe.tasks]
    while True:
        [stream] = rng.choices(streams, shares)
        yield next(stream)


def _stream(source: Source, recipe: DataRecipe, rng: Random) -> Iterator[Sample]:
    if source.task is None:
        return _from_traces(_traces(source, recipe).training, recipe, rng)
    return _from_task(source.task, recipe, rng)


def _from_task(task: Generator[Any], recipe: DataRecipe, rng: Random) -> Iterator[Sample]:
    mistakes = Mistakes.of(task, recipe)
    for problem in task.stream(Split.TRAIN, rng):
        path = _choose_path(task.reference_paths(problem), recipe, rng)
        if recipe.wrong_paths is not None:
            wrong = floor(recipe.wrong_paths + rng.random())
            is_right = True
        else:
            wrong = int(rng.random() < recipe.backtrack_share)
            is_right = not wrong
        if is_right:
            yield _right(task.checker.prompt(problem), path, recipe, rng)
        # Where a problem has no wrong step of the wanted kinds, the next problem is drawn.
        drawn = (mistakes.draw(problem, path, rng) for _ in range(wrong))
        yield from (_wrong(mistake) for mistake in drawn if mistake is not None)


def _wrong(mistake: WrongPath) -> Sample:
    wrong, *follow_ups = mistake.wrong_steps
    return Sample(
        prompt=mistake.prompt, steps=mistake.prefix, wrong_step=wrong, follow_ups=follow_ups
    )


def _right(prompt: str, path: list[str], recipe: DataRecipe, rng: Random) -> Sample:
    """A right path, or its first step alone."""
    # Nothing is drawn where there is no choice: other recipes' samples stay as they were.
    if len(path) > 1 and recipe.first_steps and rng.random() < recipe.first_steps:
        return Sample(prompt=prompt, steps=path[:1], beginning=True)
    return Sample(prompt=prompt, steps=path)


def _choose_path(paths: list[list[str]], recipe: DataRecipe, rng: Random) -> list[str]:
    if recipe.paths == "plainest":
        return paths[0]
    return rng.choice(paths if recipe.paths == "uniform" else first_of_each_order(paths))


def first_of_each_order(paths: list[list[str]]) -> list[list[str]]:
    """Drop paths that repeat an earlier one's steps in another order."""
    first: dict[tuple[str, ...], list[str]] = {}
    for path in paths:
        # The order of paths is the generator's, so the first is always the same one.
        first.setdefault(tuple(sorted(path)), path)
    return list(first.values())


def _from_traces(traces: list[Trace], recipe: DataRecipe, rng: Random) -> Iterator[Sample]:
    """Drawn at random, any of them more than once."""
    wrong = [trace for trace in traces if trace.wrong_step is not None]
    while True:
        if wrong and rng.random() < recipe.backtrack_share:
            yield _samples_of(rng.choice(wrong))[1]
        else:
            trace = rng.choice(traces)
            yield _right(trace.prompt, trace.steps, recipe, rng)


def _samples_of(trace: Trace) -> list[Sample]:
    """The whole path, and where there is a wrong step, the path up to it."""
    samples = [Sample(prompt=trace.prompt, steps=trace.steps)]
    if trace.wrong_step is not None:
        samples.append(
            Sample(prompt=trace.prompt, steps=trace.right_prefix, wrong_step=trace.wrong_step)
        )
    return samples


def _traces(source: Source, recipe: DataRecipe) -> Traces:
    files = tuple(Path(file) for file in source.files)
    written = tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)
    return _read_once(files, written, recipe.separator)


@lru_cache(maxsize=4)
def _read_once(files: tuple[Path, ...], written: tuple[int, ...], separator: str) -> Traces:
    """One reading for all chunks of a process, as long as the files stay as they were written."""
    return read_traces(files, Grammar(separator=separator))


def _chunk(recipe: DataRecipe, index: int, size: int) -> str:
    # Seeded by its own index, so that chunks do not depend on which process makes them.
    rng = Random(f"{recipe.seed}:{index}")
    return "".join(_to_line(sample) for sample in islice(make_samples(recipe, rng), size))


def _to_line(sample: Sample) -> str:
    # Without defaults and spaces: files have millions of lines.
    return json.dumps(sample.model_dump(exclude_defaults=True), separators=(",", ":")) + "\n"
