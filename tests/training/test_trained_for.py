"""The shape of the training's problems, as a recipe draws them."""

from stepback_core.manifest import Manifest, unlike_training
from stepback_core.tasks import CountdownProblem
from stepback_training.config import Recipe
from stepback_training.train.trained_for import trained_for
from tests.conftest import CHECKPOINT


def test_the_bundled_checkpoint_says_what_its_recipe_draws() -> None:
    manifest = Manifest.read(CHECKPOINT)
    assert trained_for(Recipe.model_validate(manifest.recipe)) == manifest.trained_for


def test_a_task_of_several_sizes_has_the_range_of_all() -> None:
    tasks = [{"name": "countdown", "options": {"numbers": n}} for n in (3, 5, 4)]
    recipe = {
        "name": "sizes",
        "data": {"samples": 1, "tasks": tasks},
        "scratch": {},
        "train": {"learning_rate": 1e-3},
    }
    assert trained_for(Recipe.model_validate(recipe)) == {"countdown": {"numbers": (3, 5)}}


def test_a_problem_outside_of_it_is_told_from_one_inside() -> None:
    four = CountdownProblem(numbers=[1, 2, 3, 4], target=10)
    three = CountdownProblem(numbers=[1, 2, 3], target=6)
    assert unlike_training({"numbers": (4, 4)}, four) is None
    assert unlike_training({}, three) is None
    said = unlike_training({"numbers": (4, 5)}, three)
    assert said == "numbers has 3 entries; the model was trained on problems with 4 to 5"
