"""Questions of deduction as they are drawn: a graph, names for its nodes, sentences in any order.

Concepts are added one by one, each after parents that are there already, so the graph has no
cycle. Some of them are kept from the question's subject: one of these is the wrong answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import Annotated, Self

from pydantic import Field, model_validator

from stepback_core.tasks.deduction.graph import write_sentence
from stepback_core.tasks.deduction.problem import DeductionProblem
from stepback_core.tasks.deduction.proof import Direction
from stepback_training.generators.base import Options

_Count = Annotated[int, Field(ge=4, le=100)]
_Names = Annotated[int, Field(ge=2, le=6)]
_Steps = Annotated[int, Field(ge=2, le=20)]
# Made-up words, after those of ProntoQA and ProsQA: a model knows nothing of them.
_ONSETS = "b br ch d f g gr gw h j k l n qu r scr sh st t v w y z zh"
_RIMES = "impus umpus ompus empus orpus erpus ilpus elpus"
_CONCEPTS = tuple(map("".join, product(_ONSETS.split(), _RIMES.split())))
_NAMES = "Alex Bob Carol Davis Eva Fae Gabriel Jack Max Oliver Polly Rex Sally Sam Stella Tom"
_PARENTS = (1, 1, 2, 2, 2, 3, 4)
_SHARE_KEPT_APART = 0.4
"""Share of the concepts that the subject does not become."""

Edges = dict[int, list[int]]
"""Nodes by number; the first are names."""


class DeductionOptions(Options):
    """Sizes of the graphs, and how paths and questions are drawn."""

    concepts: tuple[_Count, _Count] = (10, 12)
    """The fewest and the most concepts."""
    names: tuple[_Names, _Names] = (2, 3)
    steps: tuple[_Steps, _Steps] = (3, 5)
    """The fewest and the most sentences of the shortest path, the answer left out."""
    direction: Direction = Direction.FORWARD
    """From where the paths are written that training is shown: `forward` from the name, `backward`
    from the answers."""
    questions: int = Field(default=1, ge=1, le=32)
    """The most training questions about the same sentences. Tests have one."""

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        ranges = {"concepts": self.concepts, "names": self.names, "steps": self.steps}
        for name, (low, high) in ranges.items():
            if low > high:
                raise ValueError(f"{name}: the fewest come first, and {low} is more than {high}")
        if self.steps[0] > self.concepts[0] // 2:
            raise ValueError(
                f"steps: {self.concepts[0]} concepts seldom have a path of {self.steps[0]} "
                "sentences: lower it, or raise concepts"
            )
        return self


@dataclass(frozen=True, slots=True)
class Drawn:
    """A graph in words."""

    edges: Edges
    names: int
    words: list[str]
    facts: list[str]

    @classmethod
    def of(cls, edges: Edges, names: int, rng: Random) -> "Drawn":
        words = rng.sample(_NAMES.split(), names) + rng.sample(_CONCEPTS, len(edges) - names)
        facts = [write_sentence((words[node], words[to])) for node in edges for to in edges[node]]
        rng.shuffle(facts)
        return cls(edges, names, words, facts)

    def ask(self, subject: int, answers: tuple[int, int], rng: Random) -> DeductionProblem:
        first, second = rng.sample([self.words[answer] for answer in answers], 2)
        question = f"Is {self.words[subject]} a {first} or a {second}?"
        return DeductionProblem(facts=self.facts, question=question)


def draw(options: DeductionOptions, rng: Random) -> DeductionProblem:
    """A question with exactly one right answer."""
    return draw_questions(options, 1, rng)[0]


def draw_questions(options: DeductionOptions, most: int, rng: Random) -> list[DeductionProblem]:
    """Questions about the same sentences, `most` at most, each with exactly one right answer."""
    while True:
        names = rng.randint(*options.names)
        concepts = rng.randint(*options.concepts)
        edges = _draw_edges(names, concepts, rng)
        pairs = _right_and_wrong(edges, 0, names, options.steps)
        if pairs is None:
            continue
        answers = rng.choice(pairs[0]), rng.choice(pairs[1])
        drawn = Drawn.of(edges, names, rng)
        asked = drawn.ask(0, answers, rng)
        return [asked, *_further(drawn, (0, answers[0]), options, most - 1, rng)]


def _further(
    drawn: Drawn, asked: tuple[int, int], options: DeductionOptions, most: int, rng: Random
) -> list[DeductionProblem]:
    """Other questions: of any name, with any other right answer."""
    if most < 1:
        return []
    found: list[tuple[int, int, list[int]]] = []
    for subject in range(drawn.names):
        pairs = _right_and_wrong(drawn.edges, subject, drawn.names, options.steps)
        if pairs is not None:
            found += [(subject, right, pairs[1]) for right in pairs[0]]
    others = [each for each in found if each[:2] != asked]
    chosen = rng.sample(others, min(most, len(others)))
    return [drawn.ask(subject, (right, rng.choice(wrong)), rng) for subject, right, wrong in chosen]


def _draw_edges(names: int, concepts: int, rng: Random) -> Edges:
    edges: Edges = {node: [] for node in range(names + concepts)}
    shown = {0}
    for node in range(names, names + concepts):
        apart = rng.random() < _SHARE_KEPT_APART
        parents = [other for other in range(node) if not (apart and other in shown)]
        # The later ones more often, which makes paths long.
        weights = [1.0 + 0.5 * other for other in parents]
        for parent in set(rng.choices(parents, weights, k=rng.choice(_PARENTS))):
            edges[parent].append(node)
            if parent in shown:
                shown.add(node)
    return edges


def _right_and_wrong(
    edges: Edges, subject: int, names: int, steps: tuple[int, int]
) -> tuple[list[int], list[int]] | None:
    """Right and wrong answers, all with nothing after them; None if there are none."""
    far = _distances(edges, subject)
    ends = [node for node in edges if node >= names and not edges[node]]
    right = [node for node in ends if steps[0] <= far.get(node, 0) <= steps[1]]
    wrong = [node for node in ends if node not in far]
    return (right, wrong) if right and wrong else None


def _distances(edges: Mapping[int, list[int]], subject: int) -> dict[int, int]:
    """Sentences from the subject to each node that it is."""
    far = {subject: 0}
    pending = [subject]
    for node in pending:
        new = [after for after in edges[node] if after not in far]
        far |= dict.fromkeys(new, far[node] + 1)
        pending += new
    return far
