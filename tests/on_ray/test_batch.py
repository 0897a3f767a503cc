"""`stepback batch --on ray`: two actors on a local cluster, one killed in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tests.conftest import CHECKPOINT, ROOT, free_port

BODY = {"task": "countdown", "problem": {"numbers": [3, 5], "target": 15}}
COUNT = 60
SECONDS = 600


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return found


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v1/models", timeout=5).is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def engine() -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "tests.server.jobs.answering_engine", str(port), "0.5"]
    process = subprocess.Popen(command, cwd=ROOT)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: answers(url))
        yield url
    finally:
        process.kill()
        process.wait()


def written(path: Path) -> list[dict[str, Any]]:
    whole = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
    return [json.loads(line) for line in whole.splitlines()]


def actors(driver: int) -> list[psutil.Process]:
    """The processes of actors that a driver's own cluster has."""
    return [
        process
        for process in psutil.Process(driver).children(recursive=True)
        if "SearchActor" in process.name() or "SearchActor" in " ".join(process.cmdline())
    ]


def test_each_line_is_answered_once_though_an_actor_is_killed(engine: str, tmp_path: Path) -> None:
    given, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    bodies = [BODY | ({"breadth": 0} if number == 7 else {}) for number in range(COUNT)]
    lines = [{"custom_id": str(number), "body": body} for number, body in enumerate(bodies)]
    given.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [sys.executable, "-m", "stepback_client.cli", "batch", given, "--out", out]
    command += ["--model", CHECKPOINT, "--on", "ray", "--actors", "2", "--in-flight", "2"]
    environment = {name: each for name, each in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= {"STEPBACK_ENGINE_URLS": engine, "RAY_USAGE_STATS_ENABLED": "0"}
    process = subprocess.Popen(command, env=environment, cwd=tmp_path)
    try:
        wait_for(lambda: len(written(out)) > 5 or process.poll() is not None)
        assert process.poll() is None
        victim, *_ = actors(process.pid)
        victim.send_signal(signal.SIGKILL)
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.wait()
    found = {line["custom_id"]: line for line in written(out)}
    assert len(written(out)) == len(found) == COUNT
    assert found.pop("7")["error"]["status"] == 422
    assert {line["result"]["status"] for line in found.values()} == {"solved"}
