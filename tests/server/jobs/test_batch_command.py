"""`stepback batch`: over HTTP and without a server, killed and gone on with, each id once."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import warm
from tests.conftest import CHECKPOINT
from tests.server.jobs.conftest import BODY, wait_for

COMMAND: list[str | Path] = [warm.STEPBACK, "batch"]
"""The words after `python -m`."""


def written(path: Path) -> list[dict[str, Any]]:
    whole = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
    return [json.loads(line) for line in whole.splitlines()]


def test_a_file_is_answered_line_by_line_and_refusals_are_lines(
    jobs_server: httpx.Client, tmp_path: Path
) -> None:
    lines = [
        {"custom_id": "a", "method": "POST", "url": "/solve", "body": BODY},
        {"custom_id": "b", "body": BODY | {"breadth": 0}},
        {"custom_id": "c", "body": BODY | {"task": "chess"}},
        BODY,
    ]
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [*COMMAND, given, "--out", out, "--url", str(jobs_server.base_url)]
    assert warm.run(*command).returncode == 0
    answers = {line["custom_id"]: line for line in written(out)}
    assert set(answers) == {"a", "b", "c", "4"}
    assert answers["a"]["result"]["status"] == answers["4"]["result"]["status"] == "solved"
    assert (answers["b"]["error"]["status"], answers["c"]["error"]["status"]) == (422, 404)


def test_what_was_killed_goes_on_and_asks_no_line_twice(
    jobs_server: httpx.Client, tmp_path: Path
) -> None:
    count = 60
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_text("".join(json.dumps(BODY) + "\n" for _ in range(count)))
    command = [*COMMAND, given, "--out", out, "--in-flight", "2"]
    command += ["--url", str(jobs_server.base_url)]
    for at_least in (5, 15, 30):
        process = warm.start(*command)
        wait_for(lambda least=at_least: len(written(out)) >= least, 100)
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = written(out)
    with out.open("ab") as file:
        file.write(b'{"custom_id": "what a kill lea')
    assert warm.run(*command).returncode == 0
    after = written(out)
    assert after[: len(before)] == before
    assert sorted(int(line["custom_id"]) for line in after) == list(range(1, count + 1))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not JSON"),
        ("[]", "object"),
        ('{"custom_id": 1.5, "body": {}}', "custom_id as text"),
        ('{"custom_id": null, "task": "countdown"}', "custom_id as text"),
        ('{"body": {}}', "custom_id as text"),
        ('{"custom_id": 1, "body": {}}\n{"custom_id": "1", "body": {}}', "twice"),
        ('{"custom_id": "a", "body": {}}\n{"custom_id": "a", "body": {}}', "twice"),
        ('{"custom_id": "a", "url": "/x", "body": {}}', "url"),
    ],
)
def test_an_input_that_is_none_is_refused(tmp_path: Path, text: str, why: str) -> None:
    given = tmp_path / "in.jsonl"
    given.write_text(text)
    command = [*COMMAND, given, "--out", tmp_path / "out.jsonl"]
    done = warm.run(*command)
    assert done.returncode == 2 and why in done.stderr


def test_a_file_is_answered_without_a_server(engine: str, tmp_path: Path) -> None:
    """Settings, checkpoint, engine and search in the command's own process. The engine is the
    tests' own here; without STEPBACK_ENGINE_URLS it is vLLM in that process."""
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [BODY, BODY | {"task": "chess"}]
    given.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [*COMMAND, given, "--out", out, "--model", CHECKPOINT]
    environment = os.environ | {"STEPBACK_ENGINE_URLS": engine}
    assert warm.run(*command, env=environment).returncode == 0
    solved, refused = sorted(written(out), key=lambda line: line["custom_id"])
    assert solved["result"]["status"] == "solved" and refused["error"]["status"] == 404
