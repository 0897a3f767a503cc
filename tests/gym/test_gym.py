"""Every task of reasoning-gym as `gym:NAME`: its own answers are accepted, wrong ones refused."""

import json
import re
from dataclasses import fields
from itertools import islice
from pathlib import Path
from random import Random

import pytest
from pydantic import ValidationError
from reasoning_gym.factory import DATASETS

from stepback_core.errors import InvalidInput
from stepback_core.isolation import IsolatedChecker, Limits, Worker
from stepback_core.tasks.gym import GymChecker, problem_type_of
from stepback_core.tasks.plugins import find, load_checker
from stepback_training.config import Recipe
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
        problem = checker.problem_type.model_validate_json(drawn.model_dump_json())
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


def test_options_are_the_librarys_own_and_a_problem_carries_them() -> None:
    generator = GymGenerator("chain_sum").with_options({"min_terms": 4, "max_terms": 4})
    problem = generator.draw(Random(1))
    assert len(re.findall(r" [+-] ", problem.question)) == 3
    assert problem.options == {"min_terms": 4, "max_terms": 4}
    assert generator.with_options({}) is generator


def test_a_score_that_depends_on_options_takes_the_problems_own() -> None:
    """Puzzle 24 refuses numbers that its options do not have."""
    checker = GymChecker("puzzle24")
    problem = checker.draw(Random(1))
    [path] = GymGenerator("puzzle24").reference_paths(problem)
    assert checker.check(problem, path).strict is True
    others = problem.model_copy(update={"options": {"max_value": 1}})
    assert checker.check(others, path).strict is False


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"min_terms": 3, "max_terms": 2}, "max_terms must be >= min_terms"),
        ({"terms": 2}, "terms: Extra inputs"),
        ({"max_terms": "many"}, "max_terms: Input should be a valid integer"),
        ({"seed": 1}, "seed: Extra inputs"),
    ],
)
def test_options_that_a_task_does_not_have_are_named(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, object], what: str
) -> None:
    monkeypatch.setenv("STEPBACK_TASKS", "gym:chain_sum")
    add_plugins()
    source = {"name": "gym:chain_sum", "options": options}
    with pytest.raises(ValidationError, match=f"options: .*{what}"):
        DataRecipe.model_validate({"samples": 1, "tasks": [source]})
    with pytest.raises(ValidationError, match=what.rpartition(": ")[2]) as refused:
        GymChecker("chain_sum").problem_type.model_validate({"question": "?", "options": options})
    assert refused.value.errors()[0]["loc"][0] == "options"


def test_every_option_is_in_the_schema() -> None:
    for name in NAMES:
        schema = problem_type_of(name).model_json_schema()["properties"]["options"]
        own = {field.name for field in fields(DATASETS[name][1])} - {"seed", "size"}
        assert set(schema["properties"]) == own
        json.dumps(schema)


def test_the_recipe_of_three_tasks_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(__file__).parents[2] / "training/recipes/plugins/gym.toml"
    [line] = [line for line in path.read_text().splitlines() if "STEPBACK_TASKS=" in line]
    monkeypatch.setenv("STEPBACK_TASKS", line.partition("=")[2])
    add_plugins()
    recipe = Recipe.read(path)
    assert recipe.data.names == line.partition("=")[2].split(",")
    made = list(islice(make_samples(recipe.data, Random(1)), 20))
    assert all(len(sample.prompt) < 400 for sample in made)


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
