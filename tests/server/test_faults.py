"""Real processes killed and stopped: the engine core, and the controller."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from stepback_client import Client
from stepback_core.manifest import Manifest, weights_digest
from stepback_core.wire import Reload
from tests.conftest import CHECKPOINT, children, start_controller, wait_until_ready
from tests.server.weights import greedy, other_weights

SLOW = {
    "task": "countdown",
    "problem": {"numbers": [3, 5, 7, 25], "target": 41},
    "select": "perplexity",
    "breadth": 256,
    "strategy": "self_backtracking",
    "backtracks": 16,
}
QUICK = {"task": "countdown", "problem": {"numbers": [3, 5], "target": 15}, "breadth": 8}

Controller = tuple[subprocess.Popen[bytes], str, Path]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Controller]:
    """A controller of this test's own, since the test breaks it."""
    log = tmp_path / "log.txt"
    process, url = start_controller(log, reload_root=tmp_path)
    try:
        wait_until_ready(url, process, log)
        yield process, url, log
    finally:
        process.kill()
        process.wait()


def core_of(process: subprocess.Popen[bytes]) -> int:
    [core] = [pid for pid in children(process.pid) if "EngineCore" in title(pid)]
    return core


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text() + Path(f"/proc/{pid}/cmdline").read_text()


async def break_under_load(url: str, core: int, number: signal.Signals) -> tuple[list[int], float]:
    """Break the core while searches run; gives their statuses and the seconds until the last."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        calls = [asyncio.create_task(http.post("/solve", json=SLOW)) for _ in range(8)]
        while not (await http.get("/ready")).json()["running"]:
            assert not any(call.done() for call in calls)
        os.kill(core, number)
        broken = time.monotonic()
        answers = await asyncio.gather(*calls)
        seconds = time.monotonic() - broken
        bodies = [answer.json() for answer in answers]
        assert all(body["error"]["code"] == "engine_unavailable" for body in bodies)
        return [answer.status_code for answer in answers], seconds


@pytest.mark.timeout(180)
@pytest.mark.parametrize(("number", "told_within"), [(signal.SIGKILL, 2.0), (signal.SIGSTOP, 15.0)])
def test_a_core_that_dies_or_hangs_is_replaced_and_every_caller_told(
    running: Controller, number: signal.Signals, told_within: float, tmp_path: Path
) -> None:
    process, url, log = running
    core = core_of(process)
    before = greedy(url)
    told = load(url, other_weights(tmp_path / "other"))
    loaded = greedy(url)
    assert loaded != before
    statuses, seconds = asyncio.run(break_under_load(url, core, number))
    assert statuses == [503] * 8
    assert seconds < told_within
    assert httpx.get(f"{url}/health").status_code == 200
    wait_until_ready(url, process, log)
    assert httpx.get(f"{url}/ready").json()["restarts"] >= 1
    assert core_of(process) != core and not Path(f"/proc/{core}").exists()
    # A fresh engine, which has what was loaded last: so that had really been loaded.
    assert greedy(url) == loaded
    assert load(url, CHECKPOINT).previous == told.digest
    assert greedy(url) == before
    assert httpx.post(f"{url}/solve", json=QUICK).status_code == 200


def load(url: str, folder: Path) -> Reload:
    with Client(url) as client:
        told = client.reload(Manifest.read(folder).name, str(folder))
        served = (client.version().digest, client.models().data[0].digest)
    assert {*served, told.digest} == {weights_digest(folder)}
    return told


@pytest.mark.timeout(120)
def test_a_controller_killed_hard_takes_its_engine_with_it(running: Controller) -> None:
    process, _, _ = running
    family = children(process.pid)
    assert family
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in family):
        assert time.monotonic() < deadline, "the engine outlived its controller"
        time.sleep(0.1)
