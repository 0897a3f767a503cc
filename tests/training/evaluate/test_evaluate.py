"""`stepback evaluate` as a user runs it, against the real controller."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from stepback_training.evaluate.cli import evaluate
from tests import warm
from tests.conftest import SERVED, free_port

PROBLEMS = 2
# One problem in flight: the engine's batches, and so their rounding, are the same each time.
PLAN = (
    "--problems", str(PROBLEMS), "--strategies", "greedy,best_of_n,best_first",
    "--breadths", "2", "--backtracks", "0", "--in-flight", "1", "--seed", "5",
    "--budget-tokens", "80",
)  # fmt: skip
SETTINGS = [
    "greedy tokens<=80",
    "best_of_n N=2 tokens<=80",
    "best_of_n N=2 tokens<=80 until verified",
    "best_first N=2 tokens<=80",
    "best_first N=2 tokens<=80 until verified",
]


def command(url: str, out: Path, *changes: str) -> list[str]:
    """The words after `python -m`."""
    return [warm.STEPBACK, "evaluate", "--url", url, "--out", str(out), *PLAN, *changes]


def run(url: str, out: Path, *changes: str) -> subprocess.CompletedProcess[str]:
    return warm.run(*command(url, out, *changes))


def outcomes(journal: Path) -> list[dict[str, Any]]:
    if not journal.exists():
        return []
    whole = journal.read_text().rpartition("\n")[0]
    return [line for line in map(json.loads, whole.splitlines()) if "outcome" in line]


def wait_for(journal: Path, lines: int, process: warm.Running) -> None:
    deadline = time.monotonic() + 300
    while len(outcomes(journal)) < lines:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.03)


@pytest.fixture(scope="module")
def whole(server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "whole.json"
    done = run(server, out)
    assert done.returncode == 0, done.stderr
    assert "| setting |" in done.stdout and "| greedy tokens<=80 | seen |" in done.stdout
    return out


def test_the_file_says_what_was_asked_of_whom(server: str, whole: Path) -> None:
    said = json.loads(whole.read_text())
    assert said["controller"] == httpx.get(f"{server}/version", timeout=300).json()
    assert said["model"] == httpx.get(f"{server}/v1/models", timeout=300).json()["data"][0]
    assert said["plan"]["seed"] == 5
    [process] = said["runs"]
    assert re.fullmatch("[0-9a-f]{40}", process["commit"]) and process["dirty"] in (True, False)
    assert [*said["outcomes"]] == SETTINGS
    assert all(len(said["problems"][split]) == PROBLEMS for split in ("test_seen", "test_new"))
    assert len(said["rows"]) == 2 * len(SETTINGS)
    for suffix in (".png", ".svg"):
        assert whole.with_suffix(suffix).stat().st_size > 5000


def test_a_killed_evaluation_goes_on_to_the_same_outcomes(
    server: str, whole: Path, tmp_path: Path
) -> None:
    out, journal = tmp_path / "killed.json", tmp_path / "killed.jsonl"
    process = warm.start(*command(server, out, "--no-picture"), stderr=subprocess.DEVNULL)
    wait_for(journal, PROBLEMS + 3, process)
    process.kill()
    process.wait()
    before = outcomes(journal)
    assert not out.exists() and len(before) < 2 * PROBLEMS * len(SETTINGS)
    done = run(server, out, "--no-picture")
    assert done.returncode == 0, done.stderr
    after = outcomes(journal)
    # What was there was not asked again, and nothing is there twice.
    assert after[: len(before)] == before
    assert len(after) == 2 * PROBLEMS * len(SETTINGS)
    said, undisturbed = json.loads(out.read_text()), json.loads(whole.read_text())
    assert said["problems"] == undisturbed["problems"]
    assert {k: {s: len(o) for s, o in v.items()} for k, v in said["outcomes"].items()} == {
        k: {s: len(o) for s, o in v.items()} for k, v in undisturbed["outcomes"].items()
    }
    for split in said["problems"]:
        found, wanted = (
            [(each["choices"], each["tokens"]) for each in of["outcomes"][SETTINGS[0]][split]]
            for of in (said, undisturbed)
        )
        assert found == wanted
    assert len(said["runs"]) == 2


def test_an_interrupt_lets_what_is_in_flight_come_back(server: str, tmp_path: Path) -> None:
    out, journal = tmp_path / "drained.json", tmp_path / "drained.jsonl"
    errors = tmp_path / "errors.txt"
    with errors.open("w") as file:
        process = warm.start(*command(server, out, "--in-flight", "4"), stderr=file)
    wait_for(journal, 3, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=300) == 130
    said = errors.read_text()
    assert "finishing" in said and "goes on from it" in said and "Traceback" not in said
    assert not out.exists() and len(outcomes(journal)) >= 3


def test_another_evaluation_is_not_mixed_in(server: str, whole: Path) -> None:
    before = whole.with_suffix(".jsonl").read_bytes()
    done = run(server, whole, "--seed", "6")
    assert done.returncode == 2
    assert "plan.seed (5, now 6)" in done.stderr
    assert whole.with_suffix(".jsonl").read_bytes() == before


def test_what_the_server_refuses_stops_it_and_keeps_what_was_done(
    server: str, tmp_path: Path
) -> None:
    out = tmp_path / "refused.json"
    done = run(server, out, "--breadths", "512", "--problems", "2")
    assert done.returncode == 2
    assert "this server allows at most 256" in done.stderr and "goes on from it" in done.stderr
    assert len(outcomes(out.with_suffix(".jsonl"))) == 4


def test_best_of_n_stands_beside_a_search_at_its_tokens(server: str, tmp_path: Path) -> None:
    out = tmp_path / "equal.json"
    asked = (
        "--strategies", "best_of_n,self_backtracking", "--breadths", "4", "--backtracks", "1",
        "--select", "perplexity", "--split", "new", "--problems", "6", "--at-equal-tokens",
    )  # fmt: skip
    assert evaluate(["--url", server, "--out", str(out), "--no-picture", *asked]) == 0
    rows = {row["name"]: row for row in json.loads(out.read_text())["rows"]}
    sample, searched = rows["best_of_n N=4"], rows["self_backtracking N=4 b=1"]
    beside = rows[searched["equal_tokens"]]
    samples = searched["tokens"]["mean"] / (sample["tokens"]["mean"] / 4)
    assert beside["setting"]["breadth"] == round(samples)
    assert not out.with_suffix(".png").exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (["--strategies", "majority"], "name best_of_n"),
        (["--strategies", "dfs"], "dfs"),
        (["--breadths", "0"], "0 is not positive"),
        (["--breadths", "5000"], "breadth"),
        (["--task", "sudoku", "--split", "new"], "test_new"),
        (["--task", "sudoku", "--options", '{"sides": 4}'], "sides"),
        (["--options", "4"], "JSON object"),
        (["--temperature", "nan"], "temperature"),
        (["--strategies", "greedy", "--at-equal-tokens"], "best_of_n"),
        (["--out", "results.txt"], ".json"),
    ],
)
def test_a_plan_that_cannot_be_asked_exits_with_2(
    tmp_path: Path, changes: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    try:
        status = evaluate(command(url, tmp_path / "e.json", *changes)[4:])
    except SystemExit as exit:
        status = exit.code
    said = capsys.readouterr().err
    assert status == 2
    assert named in said and "Traceback" not in said


def test_a_task_that_the_model_does_not_know_is_refused(
    knows_countdown: str, tmp_path: Path
) -> None:
    done = run(knows_countdown, tmp_path / "e.json", "--task", "maze")
    assert done.returncode == 2
    assert f"{SERVED} knows countdown" in done.stderr
