"""Deduction's training data: questions in made-up words, with dead ends that no rule shows."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from random import Random
from typing import Any

from stepback_core.tasks.deduction.checker import Deduction
from stepback_core.tasks.deduction.graph import Graph, is_name, write_sentence
from stepback_core.tasks.deduction.problem import DeductionProblem
from stepback_core.tasks.deduction.proof import Direction, Place, follow
from stepback_training.generators.base import ErrorKind, Generator, Split, is_test_input
from stepback_training.generators.deduction.errors import (
    believe,
    computational_error,
    exploration_error,
    false_claim,
    follow_up,
    rule_violation,
)
from stepback_training.generators.deduction.form import renamed_form
from stepback_training.generators.deduction.generation import DeductionOptions, draw, draw_questions

_MOST_PATHS = 16


class DeductionGenerator(Generator[DeductionProblem]):
    """Problems and wrong steps of deduction."""

    checker = Deduction()
    split_rule = (
        "test questions: first byte of SHA-256 over the graph below 26 (about 10 %), in a form "
        "that does not depend on the words, on the order of the sentences or of the two answers"
    )
    splits = (Split.TRAIN, Split.TEST_SEEN)
    error_kinds = tuple(ErrorKind)

    def __init__(self, options: DeductionOptions | None = None) -> None:
        self._options = options or DeductionOptions()

    def with_options(self, options: Mapping[str, Any]) -> "DeductionGenerator":
        return DeductionGenerator(DeductionOptions.model_validate(options))

    def split(self, problem: DeductionProblem) -> Split:
        form = renamed_form(Graph.of(problem))
        return Split.TEST_SEEN if is_test_input(f"{self.name}:{form}") else Split.TRAIN

    def draw(self, rng: Random) -> DeductionProblem:
        return draw(self._options, rng)

    def stream(self, split: Split, rng: Random) -> Iterator[DeductionProblem]:
        if split is not Split.TRAIN:
            yield from super().stream(split, rng)
        while True:
            drawn = draw_questions(self._options, self._options.questions, rng)
            yield from (problem for problem in drawn if self.split(problem) is split)

    def reference_paths(self, problem: DeductionProblem) -> list[list[str]]:
        """The shortest first, each with the answer at its end. Backward there is one: from the
        answers in their order, by the shortest way to a name; that from a right one to the
        subject, and there it ends."""
        graph = Graph.of(problem)
        if self._options.direction is Direction.BACKWARD:
            steps = _steps_backward(graph)
            return [steps] if steps else []
        return [_steps(graph, way) for way in islice(_ways(graph), _MOST_PATHS)]

    def wrong_step(
        self, problem: DeductionProblem, prefix: Sequence[str], kind: ErrorKind, rng: Random
    ) -> str | None:
        graph = Graph.of(problem)
        place = follow(graph, prefix)
        if not isinstance(place, Place):
            raise ValueError(f"the prefix {list(prefix)} is not legal: {place}")
        if kind is ErrorKind.EXPLORATION:
            return exploration_error(graph, place, self._options.direction, rng)
        if kind is ErrorKind.COMPUTATIONAL:
            return computational_error(graph, place, self._options.direction, rng)
        return rule_violation(graph, place, rng)

    def follow_up(self, problem: DeductionProblem, steps: Sequence[str], rng: Random) -> str | None:
        graph = Graph.of(problem)
        place = believe(graph, steps, self._options.direction)
        return follow_up(graph, place, self._options.direction, rng)

    def false_claim(
        self, problem: DeductionProblem, steps: Sequence[str], rng: Random
    ) -> str | None:
        graph = Graph.of(problem)
        return false_claim(graph, believe(graph, steps, self._options.direction), rng)


def _steps(graph: Graph, way: Sequence[str]) -> list[str]:
    """A way's sentences, and the answer, unless the only sentence is the answer."""
    said = _sentences(way)
    answer = write_sentence((graph.subject, way[-1]))
    return said if said == [answer] else [*said, answer]


def _sentences(way: Sequence[str]) -> list[str]:
    return [write_sentence(sentence) for sentence in pairwise(way)]


def _ways(graph: Graph) -> Iterator[list[str]]:
    """Ways from the subject to an answer, the shortest first; none comes to a concept twice."""
    pending = [[graph.subject]]
    for way in pending:
        if way[-1] in graph.answers:
            yield way
            continue
        pending += [
            [*way, after]
            for after in graph.after(way[-1])
            if after not in way and graph.leads_to_an_answer(after)
        ]


def _steps_backward(graph: Graph) -> list[str]:
    """A proof from the answers in their order; empty if neither is the subject's."""
    shown = graph.reachable([graph.subject])
    names = {node for node in graph.edges if is_name(node)}
    steps: list[str] = []
    for answer in graph.answers:
        if answer in shown:
            *said, given = _steps(graph, _way_back(graph, answer, {graph.subject}))
            return [*steps, *reversed(said), given]
        # An answer that no name is has no way, and is not begun from.
        steps += reversed(_sentences(_way_back(graph, answer, names)))
    return []


def _way_back(graph: Graph, answer: str, starts: set[str]) -> list[str]:
    """The shortest way from one of the starts to an answer; empty if there is none."""
    pending, seen = [[answer]], {answer}
    for way in pending:
        if way[0] in starts:
            return way
        new = [before for before in graph.before(way[0]) if before not in seen]
        seen.update(new)
        pending += [[before, *way] for before in new]
    return []
