"""The four arms of the marker's experiment: the same questions, and what each has beside them."""

from itertools import islice

import pytest

from stepback_training.config import DataRecipe
from stepback_training.data.samples import Sample
from stepback_training.generators import GENERATORS
from tests.benchmarks.arm_samples import ARMS, arm_samples

TASK = GENERATORS["deduction"].with_options({"concepts": [8, 9], "steps": [3, 4]})


def drawn(arm: str, seed: int = 1) -> list[Sample]:
    return list(islice(arm_samples(arm, TASK, DataRecipe(samples=1), 4, seed), 60))


def prompts(samples: list[Sample]) -> list[str]:
    return list(dict.fromkeys(sample.prompt for sample in samples))


@pytest.mark.parametrize("arm", ARMS)
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
