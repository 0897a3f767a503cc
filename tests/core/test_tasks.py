"""Rules of every task: its checker accepts its own answers and refuses its own errors."""

from collections.abc import Iterator
from itertools import islice
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stepback_core.tasks import Reason
from stepback_training.generators import GENERATORS, ErrorKind, Generator, Split
from stepback_training.generators.first_error import Mistake, first_mistake

# Each task as it comes, and its generator's other sides.
VARIANTS: dict[str, Generator[Any]] = {
    **GENERATORS,
    "countdown, of five numbers": GENERATORS["countdown"].with_options({"numbers": 5}),
    "deduction, as large as ProsQA's": GENERATORS["deduction"].with_options(
        {"concepts": (15, 24), "names": (2, 4), "steps": (3, 6)}
    ),
    "deduction, backward": GENERATORS["deduction"].with_options({"direction": "backward"}),
    "knights, of eight people": GENERATORS["knights"].with_options({"people": (8, 8)}),
    "maze, small and perfect": GENERATORS["maze"].with_options(
        {"smallest": 3, "largest": 4, "loops": 0}
    ),
    "maze, large and with loops": GENERATORS["maze"].with_options(
        {"smallest": 8, "largest": 10, "loops": 1}
    ),
    "sudoku, 9x9": GENERATORS["sudoku"].with_options({"size": 9, "givens": (40, 60)}),
    "sudoku, with guesses": GENERATORS["sudoku"].with_options({"singles": False, "givens": (4, 6)}),
}

LEGAL = {ErrorKind.EXPLORATION: {None}}
ILLEGAL = {
    "countdown": {
        ErrorKind.COMPUTATIONAL: {Reason.WRONG_ARITHMETIC},
        ErrorKind.RULE_VIOLATION: {Reason.UNAVAILABLE_OPERAND},
    },
    "deduction": {
        ErrorKind.COMPUTATIONAL: {Reason.UNSTATED},
        ErrorKind.RULE_VIOLATION: {Reason.UNCONNECTED},
    },
    "knights": {
        ErrorKind.COMPUTATIONAL: {Reason.CONTRADICTION},
        ErrorKind.RULE_VIOLATION: {Reason.REPEATED},
    },
    "maze": {
        ErrorKind.COMPUTATIONAL: {Reason.WRONG_CELL},
        ErrorKind.RULE_VIOLATION: {Reason.WALL, Reason.REVISITED},
    },
    "sudoku": {ErrorKind.RULE_VIOLATION: {Reason.CONFLICT, Reason.OCCUPIED}},
}

every_task = pytest.mark.parametrize("task", VARIANTS.values(), ids=VARIANTS)
seeds = st.integers(0, 2**32)


def draw(task: Generator[Any], seed: int) -> Any:
    rng = Random(seed)
    return next(task.stream(rng.choice(task.splits), rng))


@every_task
@settings(deadline=None, max_examples=25)
@given(seed=seeds)
def test_every_reference_path_is_legal_step_by_step_and_accepted(
    task: Generator[Any], seed: int
) -> None:
    problem = draw(task, seed)
    paths = task.reference_paths(problem)
    assert paths
    for path in paths[:4]:
        verdict = task.checker.check(problem, path)
        assert verdict.strict and verdict.reason is None
        assert task.checker.claims_goal(problem, path) and not task.checker.claims_goal(problem, [])
        for depth, step in enumerate(path):
            assert task.checker.check_step(problem, path[:depth], step) is None
            assert task.checker.state_key(problem, path[:depth]) is not None
            assert not task.checker.check(problem, path[:depth]).strict
    assert len({tuple(path) for path in paths}) == len(paths)


@every_task
@settings(deadline=None, max_examples=25)
@given(seed=seeds)
def test_no_answer_is_shorter_than_the_shortest(task: Generator[Any], seed: int) -> None:
    problem = draw(task, seed)
    checker: Any = task.checker
    shortest = checker.shortest_answer(problem)
    assert shortest
    for path in task.reference_paths(problem):
        assert len(shortest) <= len(path) and len("".join(shortest)) <= len("".join(path))


@every_task
@settings(deadline=None, max_examples=40)
@given(seed=seeds, kind=st.sampled_from(ErrorKind))
def test_every_wrong_step_is_refused_for_its_kind(
    task: Generator[Any], seed: int, kind: ErrorKind
) -> None:
    rng = Random(seed)
    problem = draw(task, seed)
    path = rng.choice(task.reference_paths(problem))
    prefix = path[: rng.randrange(len(path))]
    wrong = task.wrong_step(problem, prefix, kind, rng)
    if wrong is None:
        return
    reason = task.checker.check_step(problem, prefix, wrong)
    assert reason in (LEGAL | ILLEGAL[task.name])[kind]
    assert not task.checker.check(problem, [*prefix, wrong]).strict
    assert (task.checker.state_key(problem, [*prefix, wrong]) is None) == (reason is not None)


@every_task
@settings(deadline=None, max_examples=40)
@given(seed=seeds, kind=st.sampled_from(ErrorKind))
def test_a_mistake_is_found_where_it_was_made_and_nothing_mends_it(
    task: Generator[Any], seed: int, kind: ErrorKind
) -> None:
    rng = Random(seed)
    problem = draw(task, seed)
    path = rng.choice(task.reference_paths(problem))
    assert first_mistake(task.checker, problem, path) is None
    assert all(task.checker.can_finish(problem, path[:depth]) for depth in range(len(path) + 1))
    prefix = path[: rng.randrange(len(path))]
    wrong = task.wrong_step(problem, prefix, kind, rng)
    if wrong is None:
        return
    steps = [*prefix, wrong]
    for _ in range(3):
        assert first_mistake(task.checker, problem, steps) == Mistake(len(prefix), kind)
        assert not task.checker.can_finish(problem, steps)
        assert not task.checker.check(problem, steps).strict
        following = task.follow_up(problem, steps, rng)
        if following is None:
            break
        if kind is ErrorKind.EXPLORATION:
            # What is legal stays legal: only the goal is out of reach.
            assert task.checker.check_step(problem, steps, following) is None
        steps.append(following)


def wrong_way(task: Generator[Any], seed: int, kind: ErrorKind) -> Iterator[tuple[Any, list[str]]]:
    """A training problem and a right prefix, then with one more wrong step each time."""
    rng = Random(seed)
    problem = next(task.stream(Split.TRAIN, rng))
    path = rng.choice(task.reference_paths(problem))
    steps = path[: rng.randrange(len(path))]
    yield problem, steps
    step = task.wrong_step(problem, steps, kind, rng)
    while step is not None:
        steps = [*steps, step]
        yield problem, steps
        step = task.follow_up(problem, steps, rng)


@every_task
@settings(deadline=None, max_examples=40)
@given(seed=seeds, kind=st.sampled_from(ErrorKind))
def test_no_invented_mistake_ends_in_a_goal_that_is_held_out(
    task: Generator[Any], seed: int, kind: ErrorKind
) -> None:
    for problem, steps in islice(wrong_way(task, seed, kind), 1, None):
        assert not task.ends_held_out(problem, steps)


@every_task
@settings(deadline=None, max_examples=60)
@given(seed=seeds)
def test_a_false_claim_says_that_it_reaches_the_goal_and_does_not(
    task: Generator[Any], seed: int
) -> None:
    rng = Random(seed)
    for problem, steps in wrong_way(task, seed, ErrorKind.EXPLORATION):
        claim = task.false_claim(problem, steps, rng)
        if claim is not None:
            assert task.checker.claims_goal(problem, [*steps, claim])
            assert not task.checker.check(problem, [*steps, claim]).strict
            assert not task.checker.can_finish(problem, [*steps, claim])
            assert not task.ends_held_out(problem, [*steps, claim])


@every_task
def test_a_claim_comes_where_a_step_is_left_unless_no_step_can_claim(task: Generator[Any]) -> None:
    for problem in islice(task.stream(Split.TRAIN, Random(2)), 20):
        path = task.reference_paths(problem)[0]
        claim = task.false_claim(problem, path[:-1], Random(0))
        assert (claim is None) == (task.name == "sudoku")
        assert claim not in path
        at_the_goal = task.false_claim(problem, path, Random(0))
        assert at_the_goal is None
        if task.name == "countdown":
            assert task.false_claim(problem, path[:-2], Random(0)) is None


@every_task
@pytest.mark.parametrize("step", ["", "1", ">Zz", "9" * 5000, "٢+٢=٤"])
def test_what_is_no_step_is_a_mistake_and_may_be_followed(task: Generator[Any], step: str) -> None:
    problem = task.checker.example
    assert not task.checker.can_finish(problem, [step])
    assert first_mistake(task.checker, problem, [step, step]) is not None
    assert not task.ends_held_out(problem, [step])
    task.follow_up(problem, [step], Random(0))
    task.false_claim(problem, [step], Random(0))


@every_task
def test_every_kind_of_error_occurs(task: Generator[Any]) -> None:
    met = set[ErrorKind]()
    for seed in range(60):
        rng = Random(seed)
        problem = draw(task, seed)
        path = task.reference_paths(problem)[0]
        for kind in ErrorKind:
            if task.wrong_step(problem, path[: rng.randrange(len(path))], kind, rng) is not None:
                met.add(kind)
    assert met == set(task.error_kinds) == {ErrorKind.EXPLORATION, *ILLEGAL[task.name]}


@every_task
def test_drawn_problems_belong_to_their_split(task: Generator[Any]) -> None:
    for split in task.splits:
        problems = list(islice(task.stream(split, Random(3)), 30))
        assert all(task.split(problem) is split for problem in problems)
        assert len({task.checker.prompt(problem) for problem in problems}) > 20
    for split in set(Split) - set(task.splits):
        with pytest.raises(ValueError, match=f"{task.name} has no {split}"):
            next(task.stream(split, Random(3)))


@every_task
def test_a_seed_decides_the_problems(task: Generator[Any]) -> None:
    one, same, other = (
        [task.checker.prompt(p) for p in islice(task.stream(Split.TRAIN, Random(seed)), 20)]
        for seed in (1, 1, 2)
    )
    assert one == same != other


@every_task
def test_the_example_is_held_out_and_has_a_solution(task: Generator[Any]) -> None:
    assert task.split(task.checker.example) is Split.TEST_SEEN
    assert task.reference_paths(task.checker.example)


@every_task
def test_the_prompt_is_one_line_that_begins_with_the_tasks_name(task: Generator[Any]) -> None:
    prompt = task.checker.prompt(draw(task, 1))
    assert prompt.startswith(f"{task.name}:") and prompt.isascii() and prompt.isprintable()


@every_task
@pytest.mark.parametrize("step", ["", " ", "\n", "é", "1", "9" * 5000, ">Zz", "Ii9", "٢+٢=٤"])
def test_what_is_no_step_is_refused(task: Generator[Any], step: str) -> None:
    problem = task.checker.example
    assert task.checker.check_step(problem, [], step) is not None
    assert task.checker.state_key(problem, [step]) is None
    assert task.checker.check(problem, [step]).reason is not None
    for prefix in ([step], [*task.reference_paths(problem)[0][:1], step]):
        with pytest.raises(ValueError, match="legal"):
            task.checker.check_step(problem, prefix, "x")


@every_task
def test_a_picture_shows_what_is_legal_and_stops_there(task: Generator[Any]) -> None:
    problem = task.checker.example
    path = task.reference_paths(problem)[0]
    pictures = [task.checker.picture(problem, path[:depth]) for depth in range(len(path) + 1)]
    assert pictures[1] == task.checker.picture(problem, [path[0], "nonsense", *path[1:]])
    if pictures[0] is not None:
        assert all(picture and picture.isascii() for picture in pictures)
        assert len(set(pictures)) >= len(path)


@every_task
def test_unknown_options_are_refused(task: Generator[Any]) -> None:
    with pytest.raises(ValidationError, match="speed"):
        task.with_options({"speed": 3})


@every_task
def test_a_problem_is_what_its_json_says(task: Generator[Any]) -> None:
    problem = draw(task, 5)
    again = task.checker.problem_type.model_validate(problem.model_dump(mode="json"))
    assert again == problem
    with pytest.raises(ValidationError, match="hint"):
        task.checker.problem_type.model_validate(problem.model_dump() | {"hint": 1})
