"""Deduction in words: questions, the reason of each refusal, and the split under new names."""

from collections import Counter
from itertools import islice
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stepback_core.tasks import TASKS, DeductionProblem, Reason
from stepback_core.tasks.deduction.graph import Graph, read_sentence, write_sentence
from stepback_training.generators import GENERATORS, Split
from stepback_training.generators.deduction.form import renamed_form

TASK = GENERATORS["deduction"]
CHECKER = TASKS["deduction"]
PROBLEM: DeductionProblem = CHECKER.example
PATH = [
    "Sally is a gerpus.",
    "Every gerpus is a rompus.",
    "Every rompus is a sterpus.",
    "Sally is a sterpus.",
]
seeds = st.integers(0, 10_000)


def draw(seed: int, **options: Any) -> DeductionProblem:
    return next(TASK.with_options(options).stream(Split.TRAIN, Random(seed)))


def test_the_example_reads_as_documented() -> None:
    assert CHECKER.prompt(PROBLEM).startswith("deduction: Sally is a gerpus. Every lempus is a")
    assert CHECKER.prompt(PROBLEM).endswith("brimpus. Is Sally a hilpus or a sterpus?")
    assert TASK.reference_paths(PROBLEM) == [PATH]


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([], Reason.NOT_REACHED),
        (PATH[:-1], Reason.NOT_REACHED),
        (["Sally is a lempus.", "Every lempus is a yumpus."], Reason.NOT_REACHED),
        (["Sally is a sterpus."], Reason.UNSTATED),
        (["Max is a gerpus."], Reason.UNSTATED),
        (["Every gerpus is a sterpus."], Reason.UNSTATED),
        ([*PATH[:2], "Sally is a sterpus."], Reason.UNSTATED),
        ([*PATH[:3], "Sally is a hilpus."], Reason.UNSTATED),
        (["Max is a wumpus."], Reason.UNCONNECTED),
        (["Every gerpus is a rompus."], Reason.UNCONNECTED),
        ([PATH[0], "Every rompus is a sterpus."], Reason.UNCONNECTED),
        ([PATH[0], "Sally is a lempus."], Reason.UNCONNECTED),
        ([*PATH[:2], "Sally is a rompus."], Reason.UNCONNECTED),
        ([*PATH, PATH[-1]], Reason.UNCONNECTED),
        (["sally is a gerpus."], Reason.MALFORMED_STEP),
        (["Sally is a gerpus"], Reason.MALFORMED_STEP),
        (["Every Sally is a gerpus."], Reason.MALFORMED_STEP),
    ],
)
def test_each_refusal_has_its_reason(steps: list[str], reason: Reason) -> None:
    verdict = CHECKER.check(PROBLEM, steps)
    assert (verdict.strict, verdict.reason) == (False, reason)
    # ProsQA's own rule looks at the answer alone.
    assert verdict.lax == (reason is not Reason.NOT_REACHED and steps[-1] == "Sally is a sterpus.")


def test_a_question_reads_the_same_without_its_second_article() -> None:
    short = DeductionProblem(facts=PROBLEM.facts, question="Is Sally a hilpus or sterpus?")
    assert CHECKER.prompt(short) == CHECKER.prompt(PROBLEM)


def test_training_may_ask_several_questions_about_the_same_sentences() -> None:
    task = TASK.with_options({"concepts": [15, 20], "questions": 4})
    drawn = list(islice(task.stream(Split.TRAIN, Random(1)), 60))
    asked = Counter(tuple(problem.facts) for problem in drawn)
    assert 2 < max(asked.values()) <= 4
    assert len({(tuple(problem.facts), problem.question) for problem in drawn}) == len(drawn)
    for problem in drawn:
        path = TASK.reference_paths(problem)[0]
        assert CHECKER.check(problem, path).strict
        graph = Graph.of(problem)
        assert len({*graph.answers} & graph.reachable([graph.subject])) == 1
    tests = list(islice(task.stream(Split.TEST_SEEN, Random(1)), 5))
    assert tests == list(
        islice(TASK.with_options({"concepts": [15, 20]}).stream(Split.TEST_SEEN, Random(1)), 5)
    )


def test_a_fact_that_is_the_answer_needs_no_second_saying() -> None:
    problem = DeductionProblem(facts=["Max is a wumpus."], question="Is Max a hilpus or a wumpus?")
    assert CHECKER.check(problem, ["Max is a wumpus."]).strict
    assert TASK.reference_paths(problem) == [["Max is a wumpus."]]


def test_the_way_to_a_concept_does_not_matter() -> None:
    facts = ["Max is a wumpus.", "Max is a lempus.", "Every wumpus is a lempus."]
    problem = DeductionProblem(facts=facts, question="Is Max a hilpus or a gorpus?")
    long, short = [facts[0], facts[2]], [facts[1]]
    assert CHECKER.state_key(problem, long) == CHECKER.state_key(problem, short)
    assert not CHECKER.can_finish(problem, short)


def test_sentences_that_lead_round_in_a_circle_have_an_end() -> None:
    facts = ["Max is a wumpus.", "Every wumpus is a lempus.", "Every lempus is a wumpus."]
    problem = DeductionProblem(facts=facts, question="Is Max a lempus or a gorpus?")
    assert TASK.reference_paths(problem) == [[*facts[:2], "Max is a lempus."]]
    assert CHECKER.can_finish(problem, [*facts, facts[1]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"facts": []}, "at least 1 item"),
        ({"facts": ["Every gerpus are rompus."]}, "'Every gerpus are rompus.' is not of the form"),
        (
            {"facts": ["Sally is a gerpus.", "Sally is happy."]},
            r"facts\.1\n.*'Sally is happy.' is not",
        ),
        ({"question": "Is Sally a hilpus?"}, "not of the form"),
        ({"question": "Is Sally a hilpus or a hilpus?"}, "both answers are 'hilpus'"),
    ],
)
def test_what_is_no_question_is_refused(changes: dict[str, Any], message: str) -> None:
    fields = {"facts": PROBLEM.facts, "question": PROBLEM.question} | changes
    with pytest.raises(ValidationError, match=message):
        DeductionProblem.model_validate(fields)


def test_sentences_are_read_as_they_are_written() -> None:
    for sentence in [("Sally", "impus"), ("gerpus", "rompus"), ("impus", "gerpus")]:
        assert read_sentence(write_sentence(sentence)) == sentence
    assert write_sentence(("gerpus", "impus")) == "Every gerpus is an impus."


@settings(deadline=None, max_examples=25)
@given(seeds)
def test_a_question_has_exactly_one_right_answer_and_a_path_as_long_as_asked(seed: int) -> None:
    graph = Graph.of(draw(seed, steps=(3, 4), concepts=(9, 12)))
    shown = graph.reachable([graph.subject])
    assert len(shown.intersection(graph.answers)) == 1
    [path, *_] = TASK.reference_paths(draw(seed, steps=(3, 4), concepts=(9, 12)))
    assert 3 <= len(path) - 1 <= 4


@settings(deadline=None, max_examples=25)
@given(seeds)
def test_other_names_in_another_order_are_the_same_side_of_the_split(seed: int) -> None:
    problem = draw(seed)
    rng = Random(seed)
    graph = Graph.of(problem)
    concepts = sorted({to for node in graph.edges for to in graph.after(node)} | {*graph.answers})
    concepts += sorted(node for node in graph.edges if node.islower() and node not in concepts)
    new = {word: f"x{chr(97 + n // 26)}{chr(97 + n % 26)}" for n, word in enumerate(concepts)}
    sentences = [
        write_sentence((new.get(node, f"{node}a"), new[to]))
        for node in graph.edges
        for to in graph.after(node)
    ]
    rng.shuffle(sentences)
    one, two = graph.answers
    question = f"Is {graph.subject}a a {new[two]} or a {new[one]}?"
    renamed = DeductionProblem(facts=sentences, question=question)
    assert renamed_form(Graph.of(renamed)) == renamed_form(graph)
    assert TASK.split(renamed) is TASK.split(problem)


def test_graphs_that_differ_have_other_forms() -> None:
    forms = {renamed_form(Graph.of(draw(seed))) for seed in range(200)}
    assert len(forms) > 190


@pytest.mark.parametrize(
    "options",
    [{"concepts": (3, 9)}, {"concepts": (12, 10)}, {"steps": (8, 9)}, {"names": (1, 2)}, {"x": 1}],
)
def test_sizes_that_cannot_be_drawn_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TASK.with_options(options)
