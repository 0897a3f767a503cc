"""Kept measurements go on after a kill, and are never read as those of another experiment."""

from pathlib import Path

import pytest

from stepback_core.tasks.countdown.problem import CountdownProblem
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


def test_a_row_that_nobody_said_the_source_of_is_refused(tmp_path: Path) -> None:
    (tmp_path / "row.json").write_text("[]")
    with pytest.raises(ValueError, match="of another experiment"):
        kept_row(tmp_path / "row.json", SOURCE)


def test_a_digest_is_of_problems_in_their_order() -> None:
    one, other = (CountdownProblem(numbers=[n, 2, 3, 4], target=24) for n in (1, 7))
    assert digest_of([one, other]) != digest_of([other, one])
    assert digest_of([one, other]) == digest_of([one, other])


def test_a_folder_is_claimed_by_its_first_experiment(tmp_path: Path) -> None:
    file = tmp_path / "A-1/arm.json"
    claim(file, {"branches": 1.25})
    claim(file, {"branches": 1.25})
    with pytest.raises(ValueError, match="differs in: branches"):
        claim(file, {"branches": 3})


def test_a_folder_that_nobody_claimed_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="another --out"):
        claim(tmp_path / "arm.json", {"branches": 1.25})
