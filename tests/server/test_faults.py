"""Real processes killed and stopped: the engine core, and the controller."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from stepback_client import Client
from stepback_core.manifest import Manifest, weights_digest
from stepback_core.schemas import Reload, SolveResult
from stepback_core.tasks import TASKS, CountdownProblem
from tests.conftest import CHECKPOINT, children, start_controller, wait_until_ready
from tests.server.weights import greedy, other_weights

SLOW = {
    "task": "countdown",
    "problem": {"numbers": [3, 5, 7, 25], "target": 41},
    "select": "perplexity",
    "breadth": 64,
    "strategy": "self_backtracking",
    "backtracks": 16,
    "temperature": 2.0,  # Samples that the model is sure of are soon done.
}
CALLERS = 40
"""More than may search at once."""
QUICK = {"task": "countdown", "problem": {"numbers": [4, 16, 25, 82], "target": 95}}


@dataclass(frozen=True)
class Controller:
    process: subprocess.Popen[bytes]
    url: str
    log: Path
    started_within: float
    """Seconds, its engine's start included."""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Controller]:
    """A controller of this test's own, since the test breaks it."""
    log = tmp_path / "log.txt"
    began = time.monotonic()
    process, url = start_controller(log, reload_root=tmp_path)
    try:
        wait_until_ready(url, process, log)
        yield Controller(process, url, log, time.monotonic() - began)
    finally:
        process.kill()
        process.wait()


def core_of(process: subprocess.Popen[bytes]) -> int:
    [core] = [pid for pid in children(process.pid) if "EngineCore" in title(pid)]
    return core


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text() + Path(f"/proc/{pid}/cmdline").read_text()


async def put_to_work(http: httpx.AsyncClient) -> list[asyncio.Task[httpx.Response]]:
    """Callers who have the engine at work, and of whom some wait in the queue."""
    calls = [asyncio.create_task(http.post("/solve", json=SLOW)) for _ in range(CALLERS)]
    while not ((told := (await http.get("/ready")).json())["running"] and told["queued"]):
        assert not any(call.done() for call in calls)
    return calls


async def break_under_load(url: str, core: int, number: signal.Signals) -> tuple[list[int], float]:
    """Break the core while searches run and wait; gives their statuses and the seconds until the
    last."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as http:
        calls = await put_to_work(http)
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
    process, url, log = running.process, running.url, running.log
    core = core_of(process)
    before = greedy(url)
    told = load(url, other_weights(tmp_path / "other"))
    loaded = greedy(url)
    assert loaded != before
    statuses, seconds = asyncio.run(break_under_load(url, core, number))
    assert statuses == [503] * CALLERS
    assert seconds < told_within
    all_told = time.monotonic()
    assert httpx.get(f"{url}/health").status_code == 200
    wait_until_ready(url, process, log)
    # On a machine that is so busy that the first start took half a minute, this one may too.
    assert time.monotonic() - all_told < max(30.0, 1.5 * running.started_within)
    assert httpx.get(f"{url}/ready").json()["restarts"] >= 1
    assert core_of(process) != core and not Path(f"/proc/{core}").exists()
    # A fresh engine, which has what was loaded last: so that had really been loaded.
    assert greedy(url) == loaded
    assert load(url, CHECKPOINT).previous == told.digest
    assert greedy(url) == before
    solved = httpx.post(f"{url}/solve", json=QUICK, timeout=60)
    answer = SolveResult.model_validate_json(solved.content).answer
    assert answer is not None
    problem = CountdownProblem.model_validate(QUICK["problem"])
    assert TASKS["countdown"].check(problem, answer.steps).strict


def load(url: str, folder: Path) -> Reload:
    with Client(url) as client:
        told = client.reload(Manifest.read(folder).name, str(folder))
        served = (client.version().digest, client.models().data[0].digest)
    assert {*served, told.digest} == {weights_digest(folder)}
    return told


@pytest.mark.timeout(120)
def test_a_controller_killed_hard_under_load_takes_even_a_stopped_engine_with_it(
    running: Controller,
) -> None:
    process, url = running.process, running.url
    family = children(process.pid)
    assert family

    async def kill_under_load() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            calls = await put_to_work(http)
            os.kill(core_of(process), signal.SIGSTOP)
            process.kill()
            for answer in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(answer, httpx.TransportError)

    asyncio.run(kill_under_load())
    process.wait()
    wait_until_gone(family, seconds=5)


@pytest.mark.timeout(120)
def test_a_controller_killed_hard_while_its_engine_starts_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log.txt"
    process, _ = start_controller(log)
    try:
        while not any("spawn_main" in title(pid) for pid in children(process.pid)):
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        family = children(process.pid)
    finally:
        process.kill()
        process.wait()
    # It notices once it has imported vLLM.
    wait_until_gone(family, seconds=60)


def wait_until_gone(family: list[int], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() for pid in family):
        assert time.monotonic() < deadline, "the engine outlived its controller"
        time.sleep(0.1)
