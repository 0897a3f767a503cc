"""Deduction backward: proofs that go from the answers to the name."""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepback_core.tasks import TASKS, DeductionProblem, Reason
from stepback_core.tasks.deduction.graph import Graph, read_sentence, write_sentence
from stepback_core.tasks.deduction.proof import Direction, Place, can_finish, enter, moves
from stepback_training.generators import GENERATORS
from stepback_training.generators.deduction.errors import believe, computational_error

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
    assert (verdict.strict, verdict.reason) == (False, reason)
    # ProsQA's own rule looks at the answer alone.
    assert verdict.lax == (reason is not Reason.NOT_REACHED and steps[-1] == "Sally is a sterpus.")


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


def test_only_what_is_left_to_try_counts_at_another_name() -> None:
    facts = [*PROBLEM.facts, "Every lempus is a hilpus.", "Rex is a lempus."]
    problem = DeductionProblem(facts=facts, question="Is Max a sterpus or a hilpus?")
    way = ["Every rompus is a sterpus.", "Every gerpus is a rompus.", "Sally is a gerpus."]
    other = ["Every wumpus is a hilpus."]
    key = CHECKER.state_key(problem, way)
    assert key == Place(None, untried=("hilpus",))
    assert CHECKER.state_key(problem, other) != CHECKER.state_key(problem, [*way, *other])
    here = ["Every lempus is a hilpus.", "Rex is a lempus."]
    there = ["Every lempus is a hilpus.", "Sally is a lempus."]
    assert CHECKER.state_key(problem, here) == CHECKER.state_key(problem, there) != key


@pytest.mark.parametrize(
    ("steps", "place", "follow_up", "claim"),
    [
        # From the second answer, by a sentence that is none of the problem's.
        (
            ["Every gerpus is a sterpus."],
            Place("gerpus", "sterpus", ("hilpus",)),
            "Sally is a gerpus.",
            None,
        ),
        (
            [*FAILED, "Every gerpus is a sterpus."],
            Place("gerpus", "sterpus"),
            "Sally is a gerpus.",
            None,
        ),
        (
            ["Every gerpus is a sterpus.", "Sally is a gerpus."],
            Place("Sally", "sterpus", ("hilpus",)),
            "Sally is a sterpus.",
            "Sally is a hilpus.",
        ),
        # Once more before a name was come to.
        ([PATH[0], FAILED[0]], Place("wumpus", "hilpus"), "Max is a wumpus.", None),
        # A name that the steps do not lead to.
        ([PATH[0], "Sally is a rompus."], Place("Sally", "sterpus", ("hilpus",)), PATH[3], None),
        (["Sally is a hilpus."], Place("hilpus", is_answered=True), None, None),
    ],
)
def test_wrong_steps_are_gone_on_from_as_if_they_were_right(
    steps: list[str], place: Place, follow_up: str | None, claim: str | None
) -> None:
    assert believe(Graph.of(PROBLEM), steps, Direction.BACKWARD) == place
    assert TASK.follow_up(PROBLEM, steps, Random(0)) == follow_up
    if claim is not None:
        assert TASK.false_claim(PROBLEM, steps, Random(0)) == claim


def test_every_word_may_stand_in_a_wrong_inference() -> None:
    graph = Graph.of(PROBLEM)
    start = Place.before_the_first_step(graph)
    made = {
        computational_error(graph, start, Direction.BACKWARD, Random(seed)) for seed in range(400)
    }
    assert {"Every brimpus is a sterpus.", "Max is a hilpus.", "Sally is a sterpus."} <= made


def test_an_answer_on_the_way_to_the_other_is_gone_through() -> None:
    facts = ["Sally is a hilpus.", "Every hilpus is a sterpus."]
    problem = DeductionProblem(facts=facts, question="Is Sally a sterpus or a hilpus?")
    [path] = TASK.reference_paths(problem)
    assert path == [*reversed(facts), "Sally is a sterpus."]
    assert CHECKER.check(problem, path).strict


_WORDS = ("Max", "Rex", "Sally", "a", "b", "c", "d")
_edges = st.sets(st.tuples(st.sampled_from(_WORDS), st.sampled_from(_WORDS[3:])), min_size=1)


def graph_of(edges: set[tuple[str, str]]) -> DeductionProblem:
    """A question that nobody drew: with circles, without a right answer, or with two."""
    facts = [write_sentence(edge) for edge in sorted(edges)]
    return DeductionProblem(facts=facts, question="Is Sally an a or a b?")


def wander(graph: Graph, rng: Random, steps: int) -> Place:
    """A place that random legal steps of either direction lead to."""
    place = Place.before_the_first_step(graph)
    for _ in range(rng.randrange(steps)):
        found = [after for direction in Direction for _, after in moves(graph, place, direction)]
        if not found:
            break
        place = rng.choice(found)
    return place


@settings(deadline=None, max_examples=200)
@given(_edges, seeds)
def test_the_legal_steps_of_both_directions_are_all_that_a_checker_accepts(
    edges: set[tuple[str, str]], seed: int
) -> None:
    graph = Graph.of(graph_of(edges))
    place = wander(graph, Random(seed), 8)
    said = {*edges, *((graph.subject, answer) for answer in graph.answers)}
    accepted = {
        sentence
        for sentence in said
        if isinstance(enter(graph, place, write_sentence(sentence)), Place)
    }
    assert accepted == {s for direction in Direction for s, _ in moves(graph, place, direction)}


@settings(deadline=None, max_examples=200)
@given(_edges, seeds)
def test_what_can_finish_is_what_some_legal_steps_finish(
    edges: set[tuple[str, str]], seed: int
) -> None:
    graph = Graph.of(graph_of(edges))
    place = wander(graph, Random(seed), 8)
    pending, seen = [place], {place}
    for here in pending:
        for direction in Direction:
            new = [after for _, after in moves(graph, here, direction) if after not in seen]
            seen.update(new)
            pending += new
    assert can_finish(graph, place) == any(each.is_answered for each in seen)
    shown = graph.reachable([graph.subject])
    assert all(each.node in shown for each in seen if each.is_answered)


@settings(deadline=None, max_examples=200)
@given(_edges)
def test_a_path_tries_the_answers_in_their_order_and_ends_at_the_first_right_one(
    edges: set[tuple[str, str]],
) -> None:
    problem = graph_of(edges)
    graph = Graph.of(problem)
    shown = graph.reachable([graph.subject])
    paths = TASK.reference_paths(problem)
    assert bool(paths) == (not shown.isdisjoint(graph.answers))
    for path in paths:
        assert CHECKER.check(problem, path).strict
        right = next(answer for answer in graph.answers if answer in shown)
        assert read_sentence(path[-1]) == (graph.subject, right)
