"""The arms of the marker's experiment: the same questions, and the samples that differ."""

from itertools import islice, pairwise
from pathlib import Path
from random import Random

import pytest

from stepback_training.config import DataRecipe, Recipe
from stepback_training.data.model_errors import ModelError
from stepback_training.data.samples import Sample
from stepback_training.generators import GENERATORS, ErrorKind
from tests.benchmarks.arm_samples import (
    ARMS,
    LATER,
    OWN_ERRORS,
    arm_samples,
    places_with_a_branch,
    questions,
    recipe_of_round,
    samples_of_own_errors,
)
from tests.conftest import ROOT

TASK = GENERATORS["deduction"].with_options({"concepts": [8, 9], "steps": [3, 4]})


def drawn(arm: str, seed: int = 1) -> list[Sample]:
    return list(islice(arm_samples(arm, TASK, DataRecipe(samples=1), 4, seed), 60))


def prompts(samples: list[Sample]) -> list[str]:
    return list(dict.fromkeys(sample.prompt for sample in samples))


@pytest.mark.parametrize("arm", [*ARMS, LATER])
def test_every_arm_has_the_same_questions_in_the_same_order(arm: str) -> None:
    one, other = prompts(drawn(arm)), prompts(drawn("B"))
    shared = min(len(one), len(other))
    assert shared >= 10
    assert one[:shared] == other[:shared]
    assert drawn(arm) == drawn(arm) != drawn(arm, seed=2)


def test_right_paths_alone_have_neither_markers_nor_beginnings() -> None:
    assert all(not sample.wrong_steps and not sample.beginning for sample in drawn("A"))


def test_the_control_without_markers_has_the_beginnings_of_the_arm_with_them() -> None:
    with_markers = drawn("B")
    known = {(sample.prompt, *sample.steps) for sample in with_markers if sample.wrong_steps}
    asked = {sample.prompt for sample in with_markers[:-4]}
    beginnings = [sample for sample in drawn("C") if sample.beginning and sample.prompt in asked]
    assert beginnings
    assert all((sample.prompt, *sample.steps) in known for sample in beginnings)


def test_a_moved_marker_comes_after_right_steps_too() -> None:
    marked = [sample for sample in drawn("D") if sample.wrong_steps]
    paths = {sample.prompt: sample.steps for sample in drawn("D") if not sample.wrong_steps}
    after_right_steps = [
        sample
        for sample in marked
        if paths[sample.prompt][: len(sample.steps) + 1] == [*sample.steps, sample.wrong_step]
    ]
    assert after_right_steps
    assert len(after_right_steps) < len(marked)


def test_invented_wrong_paths_go_on() -> None:
    marked = [sample for sample in drawn(LATER) if sample.wrong_steps]
    assert {len(sample.wrong_steps) for sample in marked} >= {1, 2, 3}


@pytest.mark.parametrize("arm", OWN_ERRORS)
def test_own_errors_stand_beside_the_right_paths_of_the_same_questions(arm: str) -> None:
    asked = list(islice(questions(TASK, 1), 40))
    places = places_with_a_branch(len(asked), 1.4, Random(0))
    assert 3 < len(places) < len(asked)
    rng = Random(0)
    errors: dict[int, ModelError | None] = dict.fromkeys(places)
    for place in places[1:]:  # Every path of the first was right.
        prefix = TASK.reference_paths(asked[place])[0][:1]
        wrong = TASK.wrong_step(asked[place], prefix, ErrorKind.COMPUTATIONAL, rng)
        assert wrong
        errors[place] = ModelError(
            task="deduction",
            problem=asked[place].model_dump(mode="json"),
            prefix=prefix,
            wrong_step=wrong,
            follow_ups=["Sally is a sterpus."],
            kind=ErrorKind.COMPUTATIONAL,
            noticed=False,
        )
    samples = list(samples_of_own_errors(arm, TASK, asked, errors, rng))
    paths = [sample for sample in samples if not sample.wrong_steps]
    assert [sample.prompt for sample in paths] == [TASK.checker.prompt(each) for each in asked]
    assert prompts(samples)[:10] == prompts(drawn("B"))[:10]
    marked = [sample for sample in samples if sample.wrong_steps]
    assert [sample.prompt for sample in marked] == [paths[place].prompt for place in places[1:]]
    wrong = {len(sample.wrong_steps) for sample in marked}
    assert wrong == ({1, 2} if arm == "F" else {1})


def test_the_rounds_of_a_training_have_its_tokens_and_its_rate(tmp_path: Path) -> None:
    recipe = Recipe.read(ROOT / "training/recipes/countdown-arms.toml")
    fit = recipe.train
    assert fit.tokens == 600_000 and fit.decay == 0.5 and fit.warmup_steps
    ends = (0.0, 0.25, 0.5, 1.0)
    befores = (None, tmp_path, tmp_path)
    rounds = [
        recipe_of_round(recipe, before, *part)
        for before, part in zip(befores, pairwise(ends), strict=True)
    ]
    assert [each.train.tokens for each in rounds] == [150_000, 150_000, 300_000]
    assert [each.train.warmup_steps for each in rounds] == [fit.warmup_steps, 0, 0]
    assert [round(each.train.decay, 3) for each in rounds] == [0, 0, 1]
    assert [each.base and each.base.path for each in rounds][1:] == [str(tmp_path)] * 2
    assert recipe_of_round(recipe, None, 0.0, 0.25).data == recipe.data
    long = recipe.model_copy(update={"train": fit.model_copy(update={"decay": 0.6})})
    with pytest.raises(ValueError, match="within the last"):
        recipe_of_round(long, tmp_path, 0.25, 0.5)
    short = recipe.model_copy(update={"train": fit.model_copy(update={"decay": 0.25})})
    assert recipe_of_round(short, tmp_path, 0.5, 1.0).train.decay == 0.5
