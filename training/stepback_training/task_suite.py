"""Tests of a task for the package that brings it.

class TestSorting(TaskSuite):
    generator = SortingGenerator()
"""

from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Any, ClassVar

from stepback_training.generators import Generator, Split

_PROBLEMS = 25


class TaskSuite:
    """Subclass it as `Test...` with a `generator`; pytest finds what it inherits."""

    generator: ClassVar[Generator[Any]]

    def problems(self) -> Iterator[tuple[Any, Random]]:
        """Problems of every split, each with a generator of random numbers."""
        for seed in range(_PROBLEMS):
            rng = Random(seed)
            yield next(self.generator.stream(rng.choice(self.generator.splits), rng)), rng

    def test_every_reference_path_is_accepted_and_its_beginnings_are_not(self) -> None:
        checker = self.generator.checker
        for problem, _ in self.problems():
            paths = self.generator.reference_paths(problem)
            assert paths, f"no reference path for {problem!r}"
            for path in paths[:4]:
                verdict = checker.check(problem, path)
                assert verdict.strict is True and verdict.reason is None, (problem, path, verdict)
                for depth, step in enumerate(path):
                    illegal = checker.check_step(problem, path[:depth], step)
                    assert illegal is None, (problem, path[:depth], step, illegal)
                    assert checker.state_key(problem, path[:depth]) is not None
                    assert checker.can_finish(problem, path[:depth])
                    assert not checker.check(problem, path[:depth]).strict, path[:depth]

    def test_a_wrong_step_spoils_the_answer(self) -> None:
        checker, met = self.generator.checker, set[object]()
        for problem, rng in self.problems():
            path = rng.choice(self.generator.reference_paths(problem))
            depth = rng.randrange(len(path))
            for kind in self.generator.error_kinds:
                wrong = self.generator.wrong_step(problem, path[:depth], kind, rng)
                if wrong is not None:
                    met.add(kind)
                    for answer in ([*path[:depth], wrong], [*path[:depth], wrong, *path[depth:]]):
                        assert not checker.check(problem, answer).strict, answer
        missing = set(self.generator.error_kinds) - met
        assert not missing, f"no wrong step of these kinds: {missing}"

    def test_nonsense_is_refused_with_a_reason(self) -> None:
        checker = self.generator.checker
        for answer in ([], [""], ["nonsense \u2620"], ["0"] * 1000):
            verdict = checker.check(checker.example, answer)
            assert verdict.strict is False and verdict.reason, answer

    def test_problems_belong_to_their_split_and_differ(self) -> None:
        checker = self.generator.checker
        for split in self.generator.splits:
            problems = list(islice(self.generator.stream(split, Random(3)), _PROBLEMS))
            assert all(self.generator.split(problem) is split for problem in problems)
            assert len({checker.prompt(problem) for problem in problems}) > 1

    def test_a_seed_decides_the_problems(self) -> None:
        checker = self.generator.checker
        one, same, other = (
            [checker.prompt(each) for each in islice(self.generator.stream(Split.TRAIN, rng), 20)]
            for rng in (Random(1), Random(1), Random(2))
        )
        assert one == same != other

    def test_the_example_is_solvable_and_held_out(self) -> None:
        example = self.generator.checker.example
        assert self.generator.reference_paths(example)
        assert self.generator.split(example) is not Split.TRAIN, "training may see the example"

    def test_a_problem_is_what_its_json_says(self) -> None:
        kind = self.generator.checker.problem_type
        for problem, _ in self.problems():
            assert kind.model_validate(problem.model_dump(mode="json")) == problem
