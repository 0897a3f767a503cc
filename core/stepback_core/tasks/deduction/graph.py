"""The graph of a question of deduction: names, concepts, and the facts between them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush

from stepback_core.tasks.deduction.problem import FACT, QUESTION, RULE, DeductionProblem

Sentence = tuple[str, str]
"""A name or a concept, and the concept that it is. Names begin with a capital letter."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A problem's sentences as edges."""

    subject: str
    answers: tuple[str, str]
    """The two concepts of the question, in its order."""
    edges: Mapping[str, tuple[str, ...]]
    """The concepts of each name or concept, in the order of the sentences."""

    @classmethod
    def of(cls, problem: DeductionProblem) -> "Graph":
        """The graph of a valid problem."""
        question = QUESTION.fullmatch(problem.question)
        assert question is not None
        edges: dict[str, dict[str, None]] = {}
        for fact in problem.facts:
            if (sentence := read_sentence(fact)) is not None:
                edges.setdefault(sentence[0], {})[sentence[1]] = None
        return cls(
            question[1],
            (question[2], question[3]),
            {node: tuple(after) for node, after in edges.items()},
        )

    def write_question(self) -> str:
        one, other = (f"{_article(concept)} {concept}" for concept in self.answers)
        return f"Is {self.subject} {one} or {other}?"

    def after(self, node: str) -> tuple[str, ...]:
        """Concepts that a name or a concept is, by one sentence each."""
        return self.edges.get(node, ())

    def before(self, concept: str) -> tuple[str, ...]:
        """Names and concepts that are this one by a sentence each, in the order of `edges`."""
        return tuple(node for node, after in self.edges.items() if concept in after)

    def states(self, sentence: Sentence) -> bool:
        return sentence[1] in self.after(sentence[0])

    def reachable(self, starts: Iterable[str]) -> set[str]:
        """Every node that the sentences lead to from these, themselves included."""
        found = set(starts)
        pending = list(found)
        while pending:
            new = [node for node in self.after(pending.pop()) if node not in found]
            found.update(new)
            pending += new
        return found

    def leads_to_an_answer(self, node: str) -> bool:
        return not self.reachable([node]).isdisjoint(self.answers)

    def way_to_an_answer(self) -> list[Sentence]:
        """The sentences from the subject to an answer with the fewest characters; none if they lead
        to none."""
        ways: list[tuple[int, list[Sentence]]] = [(0, [])]
        passed = set[str]()
        while ways:
            length, way = heappop(ways)
            node = way[-1][1] if way else self.subject
            if node in self.answers:
                return way
            if node not in passed:
                passed.add(node)
                for concept in self.after(node):
                    said = (node, concept)
                    heappush(ways, (length + len(write_sentence(said)), [*way, said]))
        return []


def read_sentence(text: str) -> Sentence | None:
    """Read a sentence; None if it is none of this task."""
    found = RULE.fullmatch(text) or FACT.fullmatch(text)
    return None if found is None else (found[1], found[2])


def write_sentence(sentence: Sentence) -> str:
    node, concept = sentence
    return f"{node if is_name(node) else f'Every {node}'} is {_article(concept)} {concept}."


def _article(concept: str) -> str:
    return "an" if concept[0] in "aeiou" else "a"


def is_name(node: str) -> bool:
    return node[0].isupper()
