"""Deduction backward: proofs that go from the answers to the name."""

from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepback_core.tasks import TASKS, DeductionProblem, Reason
from stepback_core.tasks.deduction.graph import Graph, read_sentence, write_sentence
from stepback_core.tasks.deduction.proof import Direction, Place, can_finish, enter, moves
from stepback_training.generators import GENERATORS, Split

TASK = GENERATORS["deduction"].with_options({"direction": "backward"})
CHECKER = TASKS["deduction"]
PROBLEM: DeductionProblem = CHECKER.example
FAILED = ["Every wumpus is a hilpus.", "Max is a wumpus."]
PATH = [
    "Every rompus is a sterpus.",
    "Every gerpus is a rompus.",
    "Sally is a gerpus.",
    "Sally is a sterpus.",
]
seeds = st.integers(0, 10_000)


def test_the_first_answer_of_the_question_is_tried_first() -> None:
    assert TASK.reference_paths(PROBLEM) == [[*FAILED, *PATH]]
    other = DeductionProblem(facts=PROBLEM.facts, question="Is Sally a sterpus or a hilpus?")
    assert TASK.reference_paths(other) == [PATH]


@pytest.mark.parametrize("steps", [PATH, [*FAILED, *PATH]])
def test_a_proof_may_begin_with_either_answer(steps: list[str]) -> None:
    assert CHECKER.check(PROBLEM, steps).strict


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        (PATH[:-1], Reason.NOT_REACHED),
        (FAILED, Reason.NOT_REACHED),
        ([*FAILED, "Sally is a hilpus."], Reason.UNSTATED),
        ([*FAILED, "Sally is a sterpus."], Reason.UNSTATED),
        ([*PATH[:3], "Sally is a hilpus."], Reason.UNSTATED),
        ([PATH[0], "Sally is a rompus."], Reason.UNSTATED),
        ([PATH[0], "Every wumpus is a rompus."], Reason.UNSTATED),
        # The first attempt has not come to a name.
        ([FAILED[0], PATH[0]], Reason.UNCONNECTED),
        # The same answer once more.
        ([*FAILED, FAILED[0]], Reason.UNCONNECTED),
        # On from the other name, or from the question's.
        ([*FAILED, "Every wumpus is a hilpus."], Reason.UNCONNECTED),
        ([*FAILED, "Sally is a gerpus."], Reason.UNCONNECTED),
        # The other way round.
        ([PATH[0], "Every rompus is a sterpus."], Reason.UNCONNECTED),
        (["Sally is a gerpus.", PATH[0]], Reason.UNCONNECTED),
        ([*PATH, PATH[-1]], Reason.UNCONNECTED),
    ],
)
def test_each_refusal_has_its_reason(steps: list[str], reason: Reason) -> None:
    verdict = CHECKER.check(PROBLEM, steps)
    assert (verdict.strict, verdict.lax, verdict.reason) == (False, False, reason)


def test_an_answer_that_no_name_is_shown_to_be_is_not_begun_with() -> None:
    facts = ["Every wumpus is a hilpus.", "Sally is a gerpus."]
    problem = DeductionProblem(facts=facts, question="Is Sally a hilpus or a gerpus?")
    assert TASK.reference_paths(problem) == [["Sally is a gerpus."]]
    assert not CHECKER.can_finish(problem, facts[:1])


def test_a_second_attempt_that_fails_is_a_dead_end() -> None:
    facts = [*PROBLEM.facts, "Max is a rompus."]
    problem = DeductionProblem(facts=facts, question=PROBLEM.question)
    steps = [*FAILED, PATH[0]]
    assert CHECKER.can_finish(problem, steps)
    assert CHECKER.check_step(problem, steps, "Max is a rompus.") is None
    assert not CHECKER.can_finish(problem, [*steps, "Max is a rompus."])


def test_an_answer_that_a_sentence_gives_needs_no_second_saying() -> None:
    facts = ["Max is a wumpus.", "Sally is a sterpus."]
    problem = DeductionProblem(facts=facts, question="Is Sally a wumpus or a sterpus?")
    assert TASK.reference_paths(problem) == [facts]
    assert CHECKER.check(problem, facts).strict


def drawn(seed: int, **options: Any) -> tuple[DeductionProblem, Graph]:
    task = TASK.with_options({"direction": "backward", **options})
    problem = next(task.stream(Split.TRAIN, Random(seed)))
    return problem, Graph.of(problem)


def wander(graph: Graph, rng: Random, steps: int) -> Place:
    """A place that random legal steps of either direction lead to."""
    place = Place.before_the_first_step(graph)
    for _ in range(rng.randrange(steps)):
        found = [after for direction in Direction for _, after in moves(graph, place, direction)]
        if not found:
            break
        place = rng.choice(found)
    return place


@settings(deadline=None, max_examples=25)
@given(seeds)
def test_the_legal_steps_of_both_directions_are_all_that_a_checker_accepts(seed: int) -> None:
    _, graph = drawn(seed, concepts=(8, 9), steps=(2, 4))
    place = wander(graph, Random(seed), 8)
    sentences = [(node, to) for node in graph.edges for to in graph.after(node)]
    said = {*sentences, *((graph.subject, answer) for answer in graph.answers)}
    accepted = {
        sentence
        for sentence in said
        if isinstance(enter(graph, place, write_sentence(sentence)), Place)
    }
    assert accepted == {s for direction in Direction for s, _ in moves(graph, place, direction)}


@settings(deadline=None, max_examples=25)
@given(seeds)
def test_what_can_finish_is_what_some_legal_steps_finish(seed: int) -> None:
    _, graph = drawn(seed, concepts=(8, 9), steps=(2, 4))
    place = wander(graph, Random(seed), 8)
    pending, seen = [place], {place}
    for here in pending:
        for direction in Direction:
            new = [after for _, after in moves(graph, here, direction) if after not in seen]
            seen.update(new)
            pending += new
    assert can_finish(graph, place) == any(each.is_answered for each in seen)


@settings(deadline=None, max_examples=25)
@given(seeds)
def test_a_path_tries_the_answers_in_their_order_and_each_once(seed: int) -> None:
    problem, graph = drawn(seed)
    [path] = TASK.reference_paths(problem)
    said = [read_sentence(step) for step in path]
    assert None not in said
    sentences = [sentence for sentence in said if sentence is not None]
    begun = [concept for _, concept in sentences[:-1] if concept in graph.answers]
    assert begun in ([*graph.answers], [graph.answers[0]])
    assert sentences[-1] == (graph.subject, begun[-1])
    for one, next_one in pairwise(sentences[:-1]):
        assert next_one[1] == one[0] or next_one[1] in graph.answers
