"""Kept measurements go on after a kill, and are never read as those of another experiment."""

import json
from pathlib import Path

import pytest

from stepback_core.tasks.countdown.problem import CountdownProblem
from stepback_training.config import Recipe
from tests.benchmarks.kept import claim, digest_of, keep_row, kept_row
from tests.benchmarks.rows import Asked

ASKED = [Asked({"vote": True}, 40, 60, 20, 2, {"right": [0.25]})]
SOURCE = {"model": "a0", "task": "countdown", "problems": "b1", "options": {"breadth": 16}}


def test_a_kept_row_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "rows/greedy.json"
    assert kept_row(file, SOURCE) is None
    keep_row(file, SOURCE, ASKED)
    assert kept_row(file, SOURCE) == ASKED


@pytest.mark.parametrize("other", SOURCE)
def test_a_row_of_something_else_is_refused(tmp_path: Path, other: str) -> None:
    keep_row(tmp_path / "row.json", SOURCE, ASKED)
    with pytest.raises(ValueError, match=f"differs in: {other}.*another --out"):
        kept_row(tmp_path / "row.json", {**SOURCE, other: "else"})


def test_a_row_of_an_older_version_is_refused_as_that(tmp_path: Path) -> None:
    (tmp_path / "row.json").write_text("[]")
    with pytest.raises(ValueError, match="older version"):
        kept_row(tmp_path / "row.json", SOURCE)


def test_a_digest_is_of_problems_in_their_order() -> None:
    one, other = (CountdownProblem(numbers=[n, 2, 3, 4], target=24) for n in (1, 7))
    assert digest_of([one, other]) != digest_of([other, one])
    assert digest_of([one, other]) == digest_of([one, other])


def recipe(**train: object) -> Recipe:
    fields = {"name": "x", "data": {"samples": 1}, "scratch": {}}
    return Recipe.model_validate({**fields, "train": {"learning_rate": 1e-3, **train}})


def test_a_folder_is_that_of_its_first_experiment(tmp_path: Path) -> None:
    folder = tmp_path / "A-1"
    claim(folder, recipe(), number=10, branches=1.25)
    claim(folder, recipe(checkpoint_every=7), number=10, branches=1.25)
    with pytest.raises(ValueError, match="another samples; use another --out"):
        claim(folder, recipe(), number=10, branches=3)
    with pytest.raises(ValueError, match="another recipe"):
        claim(folder, recipe(tokens=5), number=10, branches=1.25)


def test_an_arm_of_an_older_recipe_goes_on_where_what_is_new_is_left_out(
    tmp_path: Path,
) -> None:
    claim(tmp_path, recipe(), number=10, branches=1.25)
    noted = json.loads((tmp_path / "arm.json").read_text())
    del noted["recipe"]["train"]["shuffle"]
    (tmp_path / "arm.json").write_text(json.dumps(noted))
    claim(tmp_path, recipe(), number=10, branches=1.25)


def test_a_trained_arm_that_nobody_noted_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(ValueError, match="older version"):
        claim(tmp_path, recipe(), number=10, branches=1.25)
