"""Deduction in words: follow the sentences from a name to one of two answers, or back from them.

    prompt   deduction: Sally is a gerpus. Every lempus is a yumpus. Every gerpus is a rompus.
             ... Is Sally a hilpus or a sterpus?
    steps    Sally is a gerpus.
             Every gerpus is a rompus.    (each step is a sentence, and goes on from the last)
             Every rompus is a sterpus.
             Sally is a sterpus.          (the answer, once the steps have led to it)
             A dead end: Every gerpus is a lempus. It is legal, and leads to neither answer.

    or, backward from the answers, the same sentences the other way round:
             Every wumpus is a hilpus.
             Max is a wumpus.             (another name: the other answer is next)
             Every rompus is a sterpus.
             Every gerpus is a rompus.
             Sally is a gerpus.
             Sally is a sterpus.

The task is that of ProsQA (arXiv 2412.06769), whose questions and steps it can read.
"""

from collections.abc import Sequence

from stepback_core.tasks.base import Checker, Reason, Verdict
from stepback_core.tasks.deduction.graph import Graph, read_sentence, write_sentence
from stepback_core.tasks.deduction.problem import (
    EXAMPLE_FACTS,
    EXAMPLE_QUESTION,
    DeductionProblem,
)
from stepback_core.tasks.deduction.proof import Place, can_finish, enter, follow


class Deduction(Checker[DeductionProblem]):
    """The deduction task; see the module for its rules."""

    name = "deduction"
    problem_type = DeductionProblem
    example = DeductionProblem(facts=EXAMPLE_FACTS, question=EXAMPLE_QUESTION)

    def prompt(self, problem: DeductionProblem) -> str:
        # In one form: ProsQA leaves out the second article, which says nothing.
        question = Graph.of(problem).write_question()
        return f"{self.name}: {' '.join([*problem.facts, question])}"

    def check(self, problem: DeductionProblem, steps: Sequence[str]) -> Verdict:
        """Judge a proof; by the lax rule, that of ProsQA, the answer alone."""
        graph = Graph.of(problem)
        place = follow(graph, steps)
        if isinstance(place, Reason):
            lax = self.claims_goal(problem, steps) and _is_shown(graph, steps[-1])
            return Verdict(False, lax, place)
        return Verdict.of(None if place.is_answered else Reason.NOT_REACHED)

    def claims_goal(self, problem: DeductionProblem, steps: Sequence[str]) -> bool:
        """The last step gives one of the two answers."""
        graph = Graph.of(problem)
        said = read_sentence(steps[-1]) if steps else None
        return said is not None and said[0] == graph.subject and said[1] in graph.answers

    def check_step(
        self, problem: DeductionProblem, prefix: Sequence[str], step: str
    ) -> Reason | None:
        graph = Graph.of(problem)
        place = follow(graph, prefix)
        if not isinstance(place, Place):
            raise ValueError(f"the prefix {list(prefix)} is not legal: {place}")
        after = enter(graph, place, step)
        return after if isinstance(after, Reason) else None

    def can_finish(self, problem: DeductionProblem, steps: Sequence[str]) -> bool:
        graph = Graph.of(problem)
        place = follow(graph, steps)
        return isinstance(place, Place) and can_finish(graph, place)

    def shortest_answer(self, problem: DeductionProblem) -> list[str]:
        """The sentences of the shortest way; none where they lead to neither answer."""
        graph = Graph.of(problem)
        said = graph.way_to_an_answer()
        # A name that has an answer by a sentence of the problem is answered with it.
        if len(said) > 1:
            said.append((graph.subject, said[-1][1]))
        return [write_sentence(each) for each in said]

    def state_key(self, problem: DeductionProblem, steps: Sequence[str]) -> Place | None:
        """The place that the steps have led to, however they did."""
        place = follow(Graph.of(problem), steps)
        return place if isinstance(place, Place) else None


def _is_shown(graph: Graph, step: str) -> bool:
    """Tell if the sentences show what a step says, however the steps before it came there."""
    said = read_sentence(step)
    return said is not None and said[1] in graph.reachable([said[0]])
