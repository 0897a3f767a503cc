"""Questions of deduction as they are drawn: a graph, names for its nodes, sentences in any order.

Concepts are added one by one, each after parents that are there already, so the graph has no
cycle. Some of them are kept from the question's subject: one of these is the wrong answer.
"""

from collections.abc import Mapping
from itertools import product
from random import Random
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stepback_core.tasks.deduction.graph import write_sentence
from stepback_core.tasks.deduction.problem import DeductionProblem

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
"""Nodes by number; the first are names, and the first of all is the subject."""


class DeductionOptions(BaseModel):
    """Sizes of the graphs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    concepts: tuple[_Count, _Count] = (10, 12)
    """The fewest and the most concepts."""
    names: tuple[_Names, _Names] = (2, 3)
    steps: tuple[_Steps, _Steps] = (3, 5)
    """The fewest and the most sentences of the shortest path, the answer left out."""

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


def draw(options: DeductionOptions, rng: Random) -> DeductionProblem:
    """A question with exactly one right answer."""
    while True:
        names = rng.randint(*options.names)
        concepts = rng.randint(*options.concepts)
        edges = _draw_edges(names, concepts, rng)
        answers = _draw_answers(edges, names, options.steps, rng)
        if answers is not None:
            return _in_words(edges, names, answers, rng)


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


def _draw_answers(
    edges: Edges, names: int, steps: tuple[int, int], rng: Random
) -> tuple[int, int] | None:
    """A right and a wrong answer, both with nothing after them; None if there are none."""
    far = _distances(edges)
    ends = [node for node in edges if node >= names and not edges[node]]
    right = [node for node in ends if steps[0] <= far.get(node, 0) <= steps[1]]
    wrong = [node for node in ends if node not in far]
    return (rng.choice(right), rng.choice(wrong)) if right and wrong else None


def _distances(edges: Mapping[int, list[int]]) -> dict[int, int]:
    """Sentences from the subject to each node that it is."""
    far = {0: 0}
    pending = [0]
    for node in pending:
        new = [after for after in edges[node] if after not in far]
        far |= dict.fromkeys(new, far[node] + 1)
        pending += new
    return far


def _in_words(edges: Edges, names: int, answers: tuple[int, int], rng: Random) -> DeductionProblem:
    words = rng.sample(_NAMES.split(), names) + rng.sample(_CONCEPTS, len(edges) - names)
    facts = [write_sentence((words[node], words[to])) for node in edges for to in edges[node]]
    rng.shuffle(facts)
    first, second = rng.sample([words[answer] for answer in answers], 2)
    return DeductionProblem(facts=facts, question=f"Is {words[0]} a {first} or a {second}?")
