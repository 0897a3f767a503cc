"""`stepback errors` and `stepback improve` with --on ray, killed in the middle."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster import SECONDS, begin, wait_for, written
from tests.conftest import CHECKPOINT
from tests.training.test_improve import PROBLEMS, write_recipe

from stepback_core.manifest import weights_digest

ON_RAY = ("--on", "ray", "--in-flight", "2")


def outcomes(journal: Path) -> list[dict[str, Any]]:
    return [line for line in written(journal) if "outcome" in line]


def kill_once(
    command: Sequence[str | Path], folder: Path, journal: Path, engine: str | None = None
) -> list[dict[str, Any]]:
    """Kill a command hard once it has some outcomes, and return them."""
    process = begin(command, folder, engine)
    try:
        wait_for(lambda: len(outcomes(journal)) >= 3 or process.poll() is not None)
        assert process.poll() is None, "it ended before it was killed"
    finally:
        process.kill()
        process.wait()
    return outcomes(journal)


def run(command: Sequence[str | Path], folder: Path, engine: str | None = None) -> int:
    process = begin(command, folder, engine)
    try:
        return process.wait(SECONDS)
    finally:
        process.kill()
        process.wait()


def test_wrong_steps_are_collected_each_problem_once(engine: str, tmp_path: Path) -> None:
    out = tmp_path / "errors.jsonl"
    journal = tmp_path / "errors.jsonl.journal.jsonl"
    command = ["errors", "--out", out, "--model", CHECKPOINT, "--samples", "2", "--problems", "12"]
    command += [*ON_RAY, "--actors", "2"]
    paid = kill_once(command, tmp_path, journal, engine)
    assert run(command, tmp_path, engine) == 0
    found = outcomes(journal)
    assert found[: len(paid)] == paid
    assert sorted(line["number"] for line in found) == list(range(12))
    assert {line["outcome"]["tally"]["paths"] for line in found} == {2}
    assert written(out)


def test_a_search_that_fails_is_a_row(engine: str, tmp_path: Path) -> None:
    """More samples than a server takes: each row says so, and the command says that all failed."""
    out = tmp_path / "errors.jsonl"
    command = ["errors", "--out", out, "--model", CHECKPOINT, "--samples", "500"]
    assert run([*command, "--problems", "3", *ON_RAY], tmp_path, engine) == 1
    found = outcomes(tmp_path / "errors.jsonl.journal.jsonl")
    assert sorted(line["number"] for line in found) == [0, 1, 2]
    assert all("breadth" in line["outcome"]["failure"] for line in found)


def test_rounds_of_improvement_go_on_with_each_problem_once(
    solving_engine: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    command = ["improve", "--recipe", write_recipe(tmp_path), "--run", folder, "--best", *ON_RAY]
    solved = folder / "1/solved.jsonl"
    paid = kill_once(command, tmp_path, solved, solving_engine)
    assert len(paid) < PROBLEMS, "it ended before it was killed"
    assert run(command, tmp_path, solving_engine) == 0
    found = outcomes(solved)
    assert found[: len(paid)] == paid
    assert sorted(line["number"] for line in found) == list(range(3, 3 + PROBLEMS))
    start, first = json.loads((folder / "improve.json").read_text())["rounds"]
    assert start["digest"] == weights_digest(CHECKPOINT) != first["digest"]
    assert first["digest"] == weights_digest(folder / "1/train/model")
    assert first["digest"] == weights_digest(folder / "model")
    assert first["search"]["solved"]["hits"] > 5 and first["search"]["failed"] == 0
