"""A server without a database: nothing that asks for a job is taken, and no file is made."""

from pathlib import Path

import pytest

from stepback_server.commands.db import db
from tests.server.test_edge import SEARCH, ask, code

BATCH = {"input_file_id": "file-1", "endpoint": "/solve", "completion_window": "24h"}
UPLOAD = {"files": {"file": ("in.jsonl", b"{}")}, "data": {"purpose": "batch"}}


def test_no_job_is_promised_without_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answers = ask(
        ("POST", "/solve", {"json": SEARCH | {"background": True}}),
        ("GET", "/v1/searches", {}),
        ("POST", "/v1/searches/a/cancel", {}),
        ("POST", "/v1/files", UPLOAD),
        ("GET", "/v1/files/a/content", {}),
        ("POST", "/v1/batches", {"json": BATCH}),
        ("GET", "/v1/batches", {}),
        database_url="",
    )
    assert [(answer.status_code, code(answer)) for answer in answers] == [
        (501, "jobs_not_offered")
    ] * len(answers)
    assert not list(tmp_path.iterdir())


def test_there_is_nothing_to_upgrade(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STEPBACK_DATABASE_URL", "")
    assert db(["upgrade"]) == 2
    assert "names no database" in capsys.readouterr().err
