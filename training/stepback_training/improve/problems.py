"""The problems of a run, each by its number alone: the same in every resumption."""

from collections.abc import Iterator, Sequence
from itertools import count
from random import Random
from typing import Any

from pydantic import BaseModel

from stepback_core.errors import InvalidInput
from stepback_training.config import DataRecipe, Source
from stepback_training.generators import Generator, Split
from stepback_training.sampling.problems import Question, draw


def refuse_held_out(task: Generator[Any], problem: BaseModel) -> None:
    """Raise InvalidInput unless a problem belongs to the training split."""
    split = task.split(problem)
    if split is not Split.TRAIN:
        where = "no split" if split is None else f"the split {split}"
        raise InvalidInput(f"{task.checker.prompt(problem)} belongs to {where}, not to training")


def training_questions(data: DataRecipe, seed: int) -> Iterator[Question]:
    """Problems of the training split without end, none twice, of each task by its share.

    Each is the first of a stream of its own: those of one stream may share their inputs.
    """
    sources = task_sources(data)
    shares = [source.share for source in sources]
    asked: set[str] = set()
    number = 0
    for attempt in count():
        # A generator of its own for each number: a run that is resumed draws the same problems
        # without drawing those before.
        rng = Random(f"{seed}/{attempt}")
        [source] = rng.choices(sources, shares)
        assert source.task is not None
        problem = next(source.task.stream(Split.TRAIN, rng))
        question = Question(source.task, Split.TRAIN, number, problem)
        # Checked although the stream is of the training split: a generator's mistake would spoil
        # every result.
        refuse_held_out(question.task, question.problem)
        if question.prompt not in asked:
            asked.add(question.prompt)
            number += 1
            yield question


def held_out_questions(data: DataRecipe, seed: int, number: int) -> dict[str, list[Question]]:
    """Draw `number` test problems of each task and kind, by `TASK-KIND`."""
    found: dict[str, list[Question]] = {}
    for source in task_sources(data) if number else ():
        task = source.task
        assert task is not None
        for split in task.splits:
            if split is not Split.TRAIN:
                kind = found.setdefault(f"{task.name}-{split}", [])
                kind += draw(task, split, seed, number, first=len(kind))
    return found


def task_sources(data: DataRecipe) -> Sequence[Source]:
    """The sources that have a checker. Raises ValueError where there are none."""
    sources = [source for source in data.tasks if source.task is not None]
    if not sources:
        raise ValueError("[data] has no task: what is solved cannot be checked without one")
    return sources
