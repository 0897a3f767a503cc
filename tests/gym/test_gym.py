"""Every task of reasoning-gym as `gym:NAME`: its own answers are accepted, wrong ones refused."""

from itertools import islice
from random import Random

import pytest
from reasoning_gym.factory import DATASETS

from stepback_core.errors import InvalidInput
from stepback_core.isolation import IsolatedChecker, Limits, Worker
from stepback_core.tasks.gym import GymChecker, GymProblem
from stepback_core.tasks.plugins import find, load_checker
from stepback_training.config.data import DataRecipe
from stepback_training.data.samples import make_samples
from stepback_training.generators import Split
from stepback_training.generators.gym import GymGenerator
from stepback_training.plugins import add_plugins

NAMES = sorted(set(DATASETS) - {"composite"})
NO_ANSWERS = {"boxnet", "rush_hour"}
"""Tasks for which the library gives no answer: they are served and evaluated, not trained on."""
WRONG = ["no such answer"]


def test_there_are_more_than_a_hundred() -> None:
    assert len(NAMES) > 100 and set(NAMES) >= NO_ANSWERS


@pytest.mark.parametrize("name", NAMES)
def test_own_answers_are_accepted_and_wrong_ones_refused(name: str) -> None:
    generator = GymGenerator(name)
    checker = generator.checker
    for seed in (1, 2):
        drawn = generator.draw(Random(seed))
        assert drawn == generator.draw(Random(seed))
        problem = GymProblem.model_validate_json(drawn.model_dump_json())
        assert problem == drawn and checker.prompt(problem)
        refused = checker.check(problem, WRONG)
        assert refused.strict is False and refused.reason
        assert checker.check(problem, []).strict is False
        if name in NO_ANSWERS:
            with pytest.raises(InvalidInput, match="no answers to train on"):
                generator.reference_paths(problem)
            continue
        [path] = generator.reference_paths(problem)
        verdict = checker.check(problem, path)
        assert verdict.strict is True and verdict.reason is None, (path, verdict)


def test_a_game_of_life_is_judged_by_its_text() -> None:
    checker = GymChecker("game_of_life_halting")
    problem = checker.draw(Random(1))
    other = {"True": "False", "False": "True"}[str(problem.answer)]
    assert checker.check(problem, [other]).strict is False


@pytest.mark.parametrize("name", ["gym:arc_agi", "gym:figlet_font", "gym:prime_factorization"])
def test_a_worker_judges_it(name: str) -> None:
    [plugin] = find([name])
    known = load_checker(plugin)
    # Seconds of a machine that may be busy; a call's limit is not at issue here.
    worker = Worker(name, Limits(seconds=60))
    try:
        checker = IsolatedChecker(worker)
        example = checker.problem_type.model_validate(known.example.model_dump(mode="json"))
        assert checker.prompt(example) == known.example.question
        assert checker.check(example, known.example.answer.split("\n")).strict is True
        assert checker.check(example, WRONG).strict is False
    finally:
        worker.close()


def test_the_splits_are_apart_and_the_example_is_held_out() -> None:
    generator = GymGenerator("chain_sum")
    for split in generator.splits:
        problems = list(islice(generator.stream(split, Random(3)), 10))
        assert {generator.split(problem) for problem in problems} == {split}
    assert generator.split(generator.checker.example) is Split.TEST_SEEN


def test_a_task_that_is_not_there_is_refused_with_those_that_are_near() -> None:
    with pytest.raises(InvalidInput, match="countdown"):
        GymChecker("countdwon")
    with pytest.raises(InvalidInput, match="gym:NAME needs"):
        GymChecker("composite")


def test_a_score_that_raises_for_its_own_answer_is_no_refusal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checker = GymChecker("chain_sum")
    monkeypatch.setattr(
        checker._dataset, "score_answer", lambda answer, entry: entry["metadata"]["absent"]
    )
    with pytest.raises(KeyError, match="absent"):
        checker.check(checker.example, WRONG)


def test_its_samples_have_right_answers_and_wrong_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPBACK_TASKS", "gym:spiral_matrix,gym:chain_sum")
    add_plugins()
    sources = [{"name": "gym:spiral_matrix"}, {"name": "gym:chain_sum"}]
    recipe = DataRecipe.model_validate({"samples": 40, "seed": 1, "tasks": sources})
    samples = list(islice(make_samples(recipe, Random(1)), 40))
    assert {sample.wrong_step is None for sample in samples} == {True, False}
