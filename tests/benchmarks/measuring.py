"""The held-out problems that the benchmarks share."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from pydantic import BaseModel

from stepback_core.tasks import CountdownProblem
from stepback_training.evaluate.problem_file import Columns, ProblemFile
from stepback_training.generators import GENERATORS, Generator, Split
from stepback_training.sampling.statistics import wilson

TASK = GENERATORS["countdown"]
KINDS = (Split.TEST_SEEN, Split.TEST_NEW)
DEVELOPMENT_SEED = 2026
"""Seed of the problems that every choice was made on: designs, temperatures, ablations."""
FINAL_SEED = 20_261_128
"""Seed of the problems that chose nothing, for README and docs/results.md."""


def problems(kind: Split, count: int, seed: int = DEVELOPMENT_SEED) -> list[CountdownProblem]:
    return list(islice(TASK.stream(kind, Random(seed)), count))


def task_problems(task: Generator[Any], kind: Split, count: int, seed: int) -> list[BaseModel]:
    """The same of any task, in the size that its options name."""
    return list(islice(task.stream(kind, Random(seed)), count))


def asked_or_drawn(
    task: Generator[Any],
    count: int,
    file: Path | None,
    question: str | None,
    seed: int = FINAL_SEED,
) -> list[BaseModel]:
    """A file's first problems, by the column of their questions; without a file drawn ones."""
    if file is None:
        return task_problems(task, Split.TEST_SEEN, count, seed)
    read = ProblemFile.read(file, task, Columns(question=question))
    return [each.problem for each in read.questions][:count]


def share(hits: int, total: int, digits: int = 0) -> str:
    """A cell of a table: per cent of all. Its 95 % interval has `digits` decimals."""
    low, high = wilson(hits, total)
    return f"{100 * hits / total:.1f} ({low:.{digits}f} to {high:.{digits}f})"


def whole_numbers(text: str) -> Sequence[int]:
    """Read the numbers of a flag, between commas."""
    return [int(number) for number in text.split(",")]


def both_kinds(count: int, seed: int = DEVELOPMENT_SEED) -> list[CountdownProblem]:
    """Draw `count` problems of each kind, one kind after the other."""
    return [problem for kind in KINDS for problem in problems(kind, count, seed)]
