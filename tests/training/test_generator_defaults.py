"""A task of one's own by the required members alone: the defaults know it through its checker."""

from collections.abc import Sequence
from itertools import islice
from random import Random

import pytest
from pydantic import BaseModel, ValidationError

from stepback_core.tasks import Checker, Verdict
from stepback_training.generators import ErrorKind, Generator, Split

_WORDS = ["ant", "bee", "cat", "dog", "eel", "fox", "gnu", "hen"]


class Words(BaseModel):
    words: list[str]


class Sorting(Checker[Words]):
    name = "sorting"
    problem_type = Words
    example = Words(words=["bee", "ant"])

    def prompt(self, problem: Words) -> str:
        return f"sorting:{','.join(problem.words)}"

    def check(self, problem: Words, steps: Sequence[str]) -> Verdict:
        return Verdict.of(None if [*steps] == sorted(problem.words) else "not_sorted")


class SortingGenerator(Generator[Words]):
    checker = Sorting()

    def draw(self, rng: Random) -> Words:
        return Words(words=rng.sample(_WORDS, 4))

    def reference_paths(self, problem: Words) -> list[list[str]]:
        return [sorted(problem.words)]


def test_a_reason_is_any_text() -> None:
    assert Sorting().check(Sorting.example, ["bee", "ant"]) == Verdict(False, False, "not_sorted")
    assert Sorting().check(Sorting.example, ["ant", "bee"]) == Verdict(True, True, None)


def test_the_split_is_by_the_prompt_and_training_sees_no_test_problem() -> None:
    generator = SortingGenerator()
    asked = {
        split: {
            Sorting().prompt(problem) for problem in islice(generator.stream(split, Random(1)), 60)
        }
        for split in generator.splits
    }
    assert asked[Split.TRAIN].isdisjoint(asked[Split.TEST_SEEN])
    with pytest.raises(ValueError, match="sorting has no test_new"):
        next(generator.stream(Split.TEST_NEW, Random(1)))


def test_a_wrong_step_is_one_that_the_checker_refuses_here() -> None:
    generator, rng = SortingGenerator(), Random(2)
    for problem in islice(generator.stream(Split.TRAIN, rng), 40):
        [path] = generator.reference_paths(problem)
        depth = rng.randrange(len(path))
        wrong = generator.wrong_step(problem, path[:depth], ErrorKind.RULE_VIOLATION, rng)
        assert wrong is not None
        answer = [*path[:depth], wrong, *path[depth + 1 :]]
        assert not Sorting().check(problem, answer).strict


def test_a_generator_without_options_refuses_them() -> None:
    with pytest.raises(ValidationError, match="speed"):
        SortingGenerator().with_options({"speed": 3})
