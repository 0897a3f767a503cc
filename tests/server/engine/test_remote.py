"""Searches over two real vLLM servers, by a controller that has neither torch nor vLLM."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from stepback_client import AsyncClient, Client, CountdownProblem, SolveResult
from stepback_core.tasks import TASKS
from stepback_server.engine.base import EngineError, EngineUnavailable, Sample, SampleRequest
from stepback_server.engine.handshake import ExpectedServer
from stepback_server.engine.remote import RemoteEngine
from tests.conftest import CHECKPOINT, SERVED, held_out
from tests.process_tree import cores_below
from tests.server.engine.conftest import Fleet, VllmServer

CHECKER = TASKS["countdown"]
PROBLEM = CountdownProblem(numbers=[3, 5, 7, 25], target=41)
BREADTH = 6
EXPECTED = ExpectedServer(model=SERVED, context_tokens=256, api_key=None, connections=8)


@pytest.fixture
def client(fleet: Fleet) -> Iterator[Client]:
    with Client(fleet.url) as client:
        yield client


def up(fleet: Fleet) -> int:
    lines = httpx.get(f"{fleet.url}/metrics", timeout=300).text.splitlines()
    [line] = [each for each in lines if each.startswith("stepback_engines_up ")]
    return round(float(line.split()[1]))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


# --- sampling ---


def test_the_controller_needs_neither_torch_nor_vllm(light_environment: dict[str, str]) -> None:
    """Check that the environment of the other tests here has neither."""
    for package in ("torch", "vllm"):
        imported = subprocess.run(
            [sys.executable, "-S", "-c", f"import {package}"], env=light_environment, check=False
        )
        assert imported.returncode == 1


def test_it_solves_held_out_problems(client: Client) -> None:
    solved = 0
    for problem in held_out(6):
        result = client.solve(problem, seed=1)
        assert result.answer is not None
        assert CHECKER.check(problem, result.answer.steps).strict == (result.status == "solved")
        solved += result.status == "solved"
    # The model card has 99 %.
    assert solved >= 4


@pytest.mark.parametrize("strategy", ["best_first", "self_backtracking", "best_of_n"])
def test_one_sample_at_a_time_with_the_same_seed_gives_the_same_tree(
    client: Client, strategy: str
) -> None:
    def once() -> object:
        result = client.solve(
            PROBLEM, strategy=strategy, seed=7, breadth=1, select="perplexity", tree=True
        )
        return result.answer and result.answer.steps, [
            (node.parent, node.steps, node.outcome) for node in result.tree or []
        ]

    assert once() == once()


def test_greedy_answers_are_those_of_the_embedded_engine(client: Client, server: str) -> None:
    with Client(server) as embedded:
        for problem in held_out(5):
            here = client.solve(problem, strategy="greedy", tree=True)
            there = embedded.solve(problem, strategy="greedy", tree=True)
            assert here.tree and there.tree
            assert here.tree[1].steps == there.tree[1].steps
            assert here.tree[1].score == pytest.approx(there.tree[1].score, abs=0.01)
            assert here.usage.generated_tokens == there.usage.generated_tokens


@pytest.mark.parametrize("tokens", [1, 7, 50, 200, 333])
def test_a_token_budget_is_exact(client: Client, tokens: int) -> None:
    result = client.solve(PROBLEM, select="perplexity", tokens=tokens, breadth=64)
    assert result.stop_reason == "token_budget"
    assert result.usage.generated_tokens == tokens


def test_what_a_deadline_cuts_off_is_counted_to_the_token(client: Client, fleet: Fleet) -> None:
    """vLLM's own counter says no more than the usage does: but a step after the abort, and the
    canaries."""
    before = sum(each.metric("vllm:generation_tokens_total") for each in fleet.servers)
    result = client.solve(
        PROBLEM,
        strategy="self_backtracking",
        select="perplexity",
        breadth=256,
        backtracks=16,
        seconds=0.5,
    )
    assert result.stop_reason == "deadline"
    after = sum(each.metric("vllm:generation_tokens_total") for each in fleet.servers)
    assert after - before == pytest.approx(result.usage.generated_tokens, abs=256 + 5)


def test_a_tree_stays_on_one_replica(client: Client, fleet: Fleet) -> None:
    """By vLLM's own count; the other one has worked on nothing but canaries of one token."""
    homes: set[int] = set()
    for number in range(12):
        started = time.monotonic()
        before = [each.metric("vllm:generation_tokens_total") for each in fleet.servers]
        result = client.solve(
            PROBLEM,
            strategy="self_backtracking",
            sampling="independent",
            select="perplexity",
            breadth=BREADTH,
            seed=number,
        )
        after = [each.metric("vllm:generation_tokens_total") for each in fleet.servers]
        grown = [b - a for a, b in zip(before, after, strict=True)]
        assert max(grown) >= result.usage.generated_tokens > 50
        # A canary every three seconds, and one that was under way.
        assert min(grown) <= 2 + (time.monotonic() - started) / 3
        homes.add(grown.index(max(grown)))
    # A chance of 1 in 2048 that all trees have the same home.
    assert homes == {0, 1}


def test_the_likeliest_tokens_are_told_at_every_position(
    servers: tuple[VllmServer, VllmServer],
) -> None:
    async def sample(temperature: float, n: int) -> list[Sample]:
        replica, samples = RemoteEngine.connect(servers[0].url, EXPECTED), list[Sample]()
        request = SampleRequest(
            ids=(4, 5, 6),
            n=n,
            max_tokens=20,
            temperature=temperature,
            seeds=tuple(range(n)),
            stop_ids=(2, 100),
            alternatives=4,
        )
        await replica.sample(request, asyncio.Event(), samples.append)
        await replica.close(kill=False)
        return samples

    for each in asyncio.run(sample(0.0, 1)):
        assert len(each.alternatives) == len(each.ids) == len(each.logprobs)
        for token, logprob, others in zip(each.ids, each.logprobs, each.alternatives, strict=True):
            assert len(others) == 3
            assert token not in dict(others) and max(dict(others).values()) <= logprob
    # A sampled token may lie outside the four likeliest.
    hot = asyncio.run(sample(2.0, 8))
    assert {len(others) for each in hot for others in each.alternatives} == {3, 4}


def test_one_thread_of_an_engine_polls_for_its_groups(
    servers: tuple[VllmServer, VllmServer],
) -> None:
    """Each wakes a hundred times a second, whatever the engine does."""
    [core] = cores_below(servers[0].process.pid)
    threads = [each.read_text() for each in Path(f"/proc/{core}/task").glob("*/comm")]
    assert threads.count("gloo_tcp_loop\n") == 1


# --- what is refused at the start ---


def test_a_server_of_another_model_or_a_shorter_context_is_refused_by_name(
    servers: tuple[VllmServer, VllmServer],
) -> None:
    url = servers[0].url
    for expected, message in (
        (
            ExpectedServer(model="x", context_tokens=9, api_key=None, connections=1),
            f"serves {SERVED}",
        ),
        (
            ExpectedServer(model=SERVED, context_tokens=257, api_key=None, connections=1),
            "--max-model-len 257",
        ),
    ):
        with pytest.raises(EngineError, match=message):
            RemoteEngine.connect(url, expected)
    with pytest.raises(EngineUnavailable, match="cannot be reached"):
        RemoteEngine.connect("http://127.0.0.1:9", EXPECTED)


def test_a_controller_for_another_model_does_not_start(
    servers: tuple[VllmServer, VllmServer], light_environment: dict[str, str], tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for part in CHECKPOINT.iterdir():
        (model / part.name).symlink_to(part)
    manifest = model / "stepback.json"
    text = manifest.read_text()
    manifest.unlink()
    manifest.write_text(text.replace(f'"{SERVED}"', '"another"', 1))
    stopped = subprocess.run(
        [sys.executable, "-S", "-m", "stepback_client.cli", "serve", "--port", "0"],
        env=light_environment
        | {"STEPBACK_MODEL": str(model), "STEPBACK_ENGINE_URLS": servers[0].url},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert stopped.returncode == 1
    assert f"{servers[0].url} serves {SERVED}, not another" in stopped.stderr


# --- faults; each of these leaves both servers up ---


def solve_side_by_side(fleet: Fleet, fault: Callable[[], None]) -> list[SolveResult]:
    """32 searches, and a fault in the middle of them."""

    async def all_at_once() -> list[SolveResult]:
        async with AsyncClient(fleet.url, timeout=800) as client:
            searches = [
                asyncio.create_task(
                    client.solve(
                        problem,
                        strategy="self_backtracking",
                        # Each sample is a request: a beam's turn to the marker would cost none.
                        sampling="independent",
                        breadth=BREADTH,
                        seed=number,
                        select="perplexity",
                        tree=True,
                    )
                )
                for number, problem in enumerate(held_out(32))
            ]
            done, _ = await asyncio.wait(searches, return_when=asyncio.FIRST_COMPLETED)
            assert len(done) < 16, "the fault would come too late"
            fault()
            return await asyncio.gather(*searches)

    return asyncio.run(all_at_once())


def assert_all_correct(results: list[SolveResult]) -> None:
    for result, problem in zip(results, held_out(32), strict=True):
        assert result.stop_reason == "exhausted"
        # Every sample of every round, with those that were lost made up for.
        assert result.tree and len(result.tree) % BREADTH == 1
        assert result.usage.engine_requests >= len(result.tree) - 1
        assert result.answer is not None
        assert CHECKER.check(problem, result.answer.steps).strict == (result.status == "solved")


@pytest.mark.timeout(900)
def test_a_replica_killed_in_the_middle_of_32_searches_loses_none_and_is_taken_back(
    fleet: Fleet,
) -> None:
    lost = fleet.servers[0]
    try:
        assert_all_correct(solve_side_by_side(fleet, lambda: lost.send(signal.SIGKILL)))
        assert up(fleet) == 1
        assert httpx.get(f"{fleet.url}/ready", timeout=300).json()["ready"]
    finally:
        lost.stop()
        lost.start()
        lost.wait_until_up()
    wait_until(lambda: up(fleet) == 2)
    assert httpx.get(f"{fleet.url}/ready", timeout=300).json()["restarts"] == 1


@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", ["server", "core"])
def test_a_replica_that_hangs_is_noticed_and_searches_go_on(fleet: Fleet, part: str) -> None:
    """The whole server answers nothing at all; with its core stopped, it still says that it is
    healthy, and only a canary shows what it is."""
    stopped = fleet.servers[1]
    send = stopped.send if part == "server" else stopped.send_to_core
    wait_until(lambda: up(fleet) == 2)
    try:
        assert_all_correct(solve_side_by_side(fleet, lambda: send(signal.SIGSTOP)))
        assert up(fleet) == 1
    finally:
        send(signal.SIGCONT)
    wait_until(lambda: up(fleet) == 2)


@pytest.mark.timeout(900)
def test_when_all_replicas_are_gone_ready_says_so_and_recovers_by_itself(fleet: Fleet) -> None:
    body = {"prompt": "countdown:3,5=15"}
    try:
        for each in fleet.servers:
            each.send(signal.SIGSTOP)
        wait_until(lambda: up(fleet) == 0)
        ready = httpx.get(f"{fleet.url}/ready", timeout=300)
        assert ready.status_code == 503
        assert ready.json()["reason"] == "no engine is up"
        assert not any(each.url in ready.text for each in fleet.servers)
        refused = httpx.post(f"{fleet.url}/solve", json=body, timeout=300)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "engine_unavailable"
    finally:
        for each in fleet.servers:
            each.send(signal.SIGCONT)
    wait_until(lambda: up(fleet) == 2)
    assert httpx.post(f"{fleet.url}/solve", json=body, timeout=300).status_code == 200
    os.kill(fleet.pid, 0)
