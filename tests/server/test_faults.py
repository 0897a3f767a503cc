"""Real processes killed and stopped: the engine core, and the controller."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from stepback_client import AsyncClient, Client, Unavailable
from stepback_core.manifest import Manifest, weights_digest
from stepback_core.schemas import Reload, SolveResult
from stepback_core.tasks import CountdownProblem
from stepback_training.generators import GENERATORS
from tests import warm
from tests.conftest import (
    CHECKPOINT,
    Controller,
    start_controller,
    started_controller,
    wait_until_ready,
)
from tests.process_tree import children, cores_below, descendants, title
from tests.server.test_stream import until_a_candidate
from tests.server.weights import greedy, other_weights

SLOW: dict[str, Any] = {
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


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """A controller of these tests' own: they break it, and all but the last leave it well again."""
    folder = tmp_path_factory.mktemp("running")
    with started_controller(folder / "log.txt", reload_root=folder) as started:
        wait_until_ready(started.url, started.process, started.log)
        yield started


def core_of(process: warm.Running) -> int:
    [core] = cores_below(process.pid)
    return core


async def put_to_work(http: httpx.AsyncClient) -> list[asyncio.Task[httpx.Response]]:
    """Callers who have the engine at work, and of whom some wait in the queue."""
    calls = [asyncio.create_task(http.post("/solve", json=SLOW)) for _ in range(CALLERS)]
    while not ((told := (await http.get("/ready")).json())["running"] and told["queued"]):
        assert not any(call.done() for call in calls)
    return calls


async def break_under_load(url: str, core: int, number: signal.Signals) -> list[int]:
    """Break the core while searches run, wait and one is streamed; gives the statuses of the
    others. None of them lasts for the search's own 120 s."""
    async with httpx.AsyncClient(base_url=url, timeout=500) as http, AsyncClient(url) as client:
        async with client.stream(**SLOW) as events:
            await until_a_candidate(events)
            calls = await put_to_work(http)
            os.kill(core, number)
            with pytest.raises(Unavailable) as told:
                [event async for event in events]
        assert told.value.code == "engine_unavailable"
        answers = await asyncio.gather(*calls)
        bodies = [answer.json() for answer in answers]
        assert all(body["error"]["code"] == "engine_unavailable" for body in bodies)
        return [answer.status_code for answer in answers]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("number", "reason"),
    [(signal.SIGKILL, "killed by SIGKILL"), (signal.SIGSTOP, "the engine was lost")],
)
def test_a_core_that_dies_or_hangs_is_replaced_and_every_caller_told(
    running: Controller, number: signal.Signals, reason: str
) -> None:
    process, url, log = running.process, running.url, running.log
    core = core_of(process)
    before = greedy(url)
    restarts = httpx.get(f"{url}/ready", timeout=300).json()["restarts"]
    told = load(url, other_weights(log.parent / number.name))
    loaded = greedy(url)
    assert loaded != before
    assert asyncio.run(break_under_load(url, core, number)) == [503] * CALLERS
    assert reason in httpx.get(f"{url}/ready", timeout=300).json()["reason"]
    assert httpx.get(f"{url}/health", timeout=300).status_code == 200
    wait_until_ready(url, process, log)
    assert httpx.get(f"{url}/ready", timeout=300).json()["restarts"] > restarts
    assert core_of(process) != core and not Path(f"/proc/{core}").exists()
    # A fresh engine, which has what was loaded last: so that had really been loaded.
    assert greedy(url) == loaded
    assert load(url, CHECKPOINT).previous == told.digest
    assert greedy(url) == before
    solved = httpx.post(f"{url}/solve", json=QUICK, timeout=300)
    answer = SolveResult.model_validate_json(solved.content).answer
    assert answer is not None
    problem = CountdownProblem.model_validate(QUICK["problem"])
    assert GENERATORS["countdown"].checker.check(problem, answer.steps).strict


def load(url: str, folder: Path) -> Reload:
    with Client(url) as client:
        told = client.reload(Manifest.read(folder).name, str(folder))
        served = (client.version().digest, client.models().data[0].digest)
    assert {*served, told.digest} == {weights_digest(folder)}
    return told


@pytest.mark.timeout(900)
def test_a_killed_fork_server_takes_the_core_with_it_and_the_next_does_without(
    running: Controller,
) -> None:
    process, url, log = running.process, running.url, running.log
    [server] = fork_servers_below(process.pid)
    core = core_of(process)
    before = greedy(url)
    os.kill(server, signal.SIGKILL)
    wait_until_gone([core])
    wait_until_ready(url, process, log)
    assert greedy(url) == before


@pytest.mark.timeout(900)
def test_a_controller_killed_hard_under_load_takes_even_a_stopped_engine_with_it(
    running: Controller,
) -> None:
    process, url = running.process, running.url
    family = descendants(process.pid)
    assert family

    async def kill_under_load() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=600) as http:
            calls = await put_to_work(http)
            os.kill(core_of(process), signal.SIGSTOP)
            process.kill()
            for answer in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(answer, httpx.TransportError)

    asyncio.run(kill_under_load())
    process.wait()
    wait_until_gone(family)


@pytest.mark.timeout(900)
def test_a_controller_killed_hard_while_its_engine_starts_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log.txt"
    process, _ = start_controller(log)
    try:
        while not (family := cores_or_what_becomes_them(process.pid)):
            assert process.poll() is None, log.read_text()
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    wait_until_gone(family)


def cores_or_what_becomes_them(pid: int) -> list[int]:
    """The fork server below a controller, and what it has forked; nothing before it has."""
    servers = fork_servers_below(pid)
    return [each for server in servers for core in children(server) for each in (server, core)]


def fork_servers_below(pid: int) -> list[int]:
    return [child for child in children(pid) if "ForkServer" in title(child)]


def wait_until_gone(family: list[int]) -> None:
    deadline = time.monotonic() + 300
    while any(Path(f"/proc/{pid}").exists() for pid in family):
        assert time.monotonic() < deadline, "the engine outlived its controller"
        time.sleep(0.1)
