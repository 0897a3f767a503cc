"""Problems by number, and the seeds of their searches. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from random import Random
from typing import Any

from pydantic import BaseModel

from stepback_training.generators import Generator, Split


@dataclass(frozen=True, slots=True)
class Question:
    """A problem with its task, split and number."""

    task: Generator[Any]
    split: Split
    number: int
    """Within its split, from 0."""
    problem: BaseModel

    @property
    def prompt(self) -> str:
        """The problem as the model reads it."""
        return self.task.checker.prompt(self.problem)

    def seed(self, seed: int) -> int:
        """Return the seed of the problem's searches, the same under every setting; `seed` is the
        run's."""
        return seed_of(seed, self.split, self.number)


def draw(
    task: Generator[Any], split: Split, seed: int, count: int, *, first: int = 0
) -> list[Question]:
    """Draw `count` problems of a split, numbered from `first`; the same for the same seed."""
    problems = islice(task.stream(split, Random(seed)), count)
    return [Question(task, split, first + n, problem) for n, problem in enumerate(problems)]


def digest_of(questions: Iterable[Question]) -> str:
    """SHA-256 of the problems: it differs where a generator draws others."""
    return sha256("\n".join(question.prompt for question in questions).encode()).hexdigest()


def seed_of(*parts: object) -> int:
    """A seed for a request, 0 to 2**31 - 1, from whatever names it."""
    return int.from_bytes(sha256(" ".join(map(str, parts)).encode()).digest()[:4]) >> 1
