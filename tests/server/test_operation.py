"""Health, readiness, version, models, documentation; start, refusal and stop of the process."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from stepback_client import AsyncClient, Client, ProgressEvent, ResultEvent
from stepback_core.errors import InvalidInput
from stepback_server.checkpoint import Checkpoint
from tests import warm
from tests.conftest import (
    CHECKPOINT,
    SERVED,
    Controller,
    started_controller,
    wait_until_ready,
)
from tests.process_tree import descendants
from tests.server.test_stream import until_a_candidate


def test_the_operators_paths_answer(server: str) -> None:
    with Client(server) as client:
        assert client.ready().ready
        assert client.version().vllm == "0.32.0"
        model, *_ = client.models().data
    assert model.id == SERVED
    assert model.tasks == ["countdown", "maze", "sudoku"]
    assert httpx.get(f"{server}/health", timeout=300).json() == {"status": "ok"}
    assert "swagger" in httpx.get(f"{server}/docs", timeout=300).text.lower()


def test_the_schema_documents_every_error_and_the_tasks_problem(server: str) -> None:
    schema = httpx.get(f"{server}/openapi.json", timeout=300).json()
    responses = schema["paths"]["/solve"]["post"]["responses"]
    assert set(responses) == {
        *["200", "202", "400", "401", "404", "413", "415", "422", "429", "500", "501", "503"]
    }
    for status, response in responses.items():
        reference = response["content"]["application/json"]["schema"]["$ref"]
        kind = {"200": "/SolveResult", "202": "/SearchJob"}.get(status, "/ErrorBody")
        assert reference.endswith(kind)
    for name in (
        "SearchJob",
        "Batch",
        "FileObject",
        "SolveRequest",
        "SolveResult",
        "Answer",
        "Usage",
        "Budget",
        "TreeNode",
    ):
        for field, text in schema["components"]["schemas"][name]["properties"].items():
            assert text.get("description"), f"{name}.{field} is not described"
    problem = schema["components"]["schemas"]["SolveRequest"]["properties"]["problem"]
    assert "numbers" in json.dumps(problem)


def test_the_schema_offers_the_served_checkpoints_tasks_and_no_other(knows_countdown: str) -> None:
    schema = httpx.get(f"{knows_countdown}/openapi.json", timeout=300).json()
    request = schema["components"]["schemas"]["SolveRequest"]
    forms = [form["properties"]["task"] for form in request["oneOf"]]
    assert forms == [{"const": "countdown"}, {"type": "null"}]
    [problem, absent] = request["properties"]["problem"]["anyOf"]
    assert problem["title"] == "CountdownProblem" and absent == {"type": "null"}
    assert [each["task"] for each in request["examples"]] == ["countdown"]


def test_an_idle_connection_is_kept_for_longer_than_uvicorn_would(server: str) -> None:
    address = httpx.URL(server)
    connection = HTTPConnection(address.host, address.port, timeout=120)
    for seconds in (0, 7):
        time.sleep(seconds)
        # The same socket: HTTPConnection would open another one only if it knew this one closed.
        connection.request("GET", "/health")
        response = connection.getresponse()
        assert response.status == 200 and response.read()
        assert not response.will_close
        connection.auto_open = 0
    connection.close()


def test_metrics_count_results_refusals_and_the_engine(server: str) -> None:
    def count(metric: str) -> float:
        lines = httpx.get(f"{server}/metrics", timeout=300).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(metric))

    body = {"task": "countdown", "problem": {"numbers": [4, 16, 25, 82], "target": 95}}
    before = [
        count(m)
        for m in (
            "stepback_searches_total",
            "stepback_tokens_total",
            'stepback_refused_total{code="out_of_range"}',
        )
    ]
    result = httpx.post(f"{server}/solve", json=body, timeout=300).json()
    httpx.post(f"{server}/solve", json=body | {"breadth": 0}, timeout=300)
    usage = result["usage"]
    tokens = sum(usage[f"{kind}_tokens"] for kind in ("generated", "discarded", "cached"))
    after = [
        count(m)
        for m in (
            "stepback_searches_total",
            "stepback_tokens_total",
            'stepback_refused_total{code="out_of_range"}',
        )
    ]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, tokens, 1]
    assert count("vllm:generation_tokens_total") > 0
    assert count("stepback_searching") == count("vllm:num_requests_running") == 0


def serve(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", warm.STEPBACK, "serve", *flags],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"STEPBACK_BREADTH": "3"}, "STEPBACK_BREADTH"),
        ({"STEPBACK_PORT": "eighty"}, "STEPBACK_PORT"),
        ({"STEPBACK_MAX_SEARCHES": "0"}, "STEPBACK_MAX_SEARCHES"),
        ({"STEPBACK_BUDGET_SECONDS": "nan"}, "STEPBACK_BUDGET_SECONDS"),
        ({"STEPBACK_MODEL": "/nowhere"}, "STEPBACK_MODEL"),
        ({"STEPBACK_KEYS_FILE": "/nowhere"}, "/nowhere"),
        ({"STEPBACK_KEYS": "alice = { sha256 = 'short' }"}, "STEPBACK_KEYS: alice: sha256"),
    ],
)
def test_a_bad_setting_stops_the_start_with_one_line(
    environment: dict[str, str], name: str
) -> None:
    stopped = serve(**environment)
    assert stopped.returncode == 2
    [line] = stopped.stderr.strip().splitlines()
    assert name in line


def test_a_flag_overrides_the_environment() -> None:
    stopped = serve("--port", "-1", STEPBACK_PORT="8000")
    assert stopped.returncode == 2
    assert "STEPBACK_PORT" in stopped.stderr


def edit(folder: Path, name: str, **fields: object) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("breaking", "part"),
    [
        (lambda f: (f / "stepback.json").unlink(), "stepback.json"),
        (lambda f: (f / "stepback.json").write_text("{"), "stepback.json"),
        (lambda f: edit(f, "stepback.json", protocol=99), "protocol"),
        (lambda f: edit(f, "stepback.json", marker_id=5), "marker_id"),
        (lambda f: edit(f, "stepback.json", end_id=5), "end_id"),
        (lambda f: edit(f, "stepback.json", vocabulary_size=5), "vocabulary_size"),
        (lambda f: edit(f, "stepback.json", tasks=["chess"]), "tasks"),
        (lambda f: edit(f, "stepback.json", grammar={"marker": "<undo>"}), "tokenizer"),
        (lambda f: edit(f, "config.json", vocab_size=5), "vocab_size"),
        (lambda f: edit(f, "stepback.json", separator_ids=[5]), "separator_ids"),
        (lambda f: edit(f, "stepback.json", grammar={"marker": "<end>"}), "grammar"),
        (lambda f: (f / "config.json").unlink(), "config.json"),
        (lambda f: (f / "config.json").write_text("[]"), "config.json"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer"),
        (lambda f: (f / "tokenizer.json").unlink(), "tokenizer"),
        (lambda f: (f / "model.safetensors").unlink(), "weights"),
        (lambda f: (f / "model.safetensors").write_bytes(b"broken"), "weights"),
    ],
)
def test_a_checkpoint_whose_parts_disagree_is_refused_by_name(
    tmp_path: Path, breaking: object, part: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(CHECKPOINT, folder)
    Checkpoint.open(folder)
    assert callable(breaking)
    breaking(folder)
    with pytest.raises(InvalidInput, match=part):
        Checkpoint.open(folder)


async def assert_told_of_the_end(url: str) -> None:
    """Whoever comes by a new connection is told why he is refused."""
    async with httpx.AsyncClient(base_url=url, timeout=300) as http:
        ready = await http.get("/ready")
        assert (ready.status_code, ready.json()["reason"]) == (503, "the server is shutting down")
        assert ready.json()["searching"]
        refused = await http.post("/solve", json={"prompt": "countdown:3,5=15"})
        assert refused.status_code == 503 and refused.headers["Retry-After"]
        assert "shutting down" in refused.json()["error"]["message"]


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    """A controller that was started a moment ago, for a test of its start and one of its end."""
    log = tmp_path_factory.mktemp("started") / "log.txt"
    # Defaults of a request that exceed what the server allows are lowered to it, not refused.
    with started_controller(log, grace_seconds=2, max_backtracks=0) as started:
        yield started


def test_health_answers_before_the_engine_is_up(started: Controller) -> None:
    body = {"prompt": "countdown:3,5=15"}
    url = started.url
    seen_before_ready = False
    while not seen_before_ready:
        assert started.process.poll() is None, started.log.read_text()
        try:
            early = httpx.get(f"{url}/ready", timeout=300)
            assert httpx.get(f"{url}/health", timeout=300).status_code == 200
            assert early.status_code == 503, "ready at once: this test has lost its point"
            refused = httpx.post(f"{url}/solve", json=body, timeout=300)
            assert refused.status_code == 503 and refused.json()["error"]["code"]
            seen_before_ready = True
        except httpx.ConnectError:
            time.sleep(0.1)


@pytest.mark.timeout(900)
def test_sigterm_returns_the_best_so_far_of_searches_in_flight_and_leaves_nothing_behind(
    started: Controller,
) -> None:
    process, url = started.process, started.url
    wait_until_ready(url, process, started.log)
    family = [process.pid, *descendants(process.pid)]
    assert len(family) > 1
    first = httpx.post(f"{url}/solve", json={"prompt": "countdown:3,5=15"}, timeout=300)
    assert first.status_code == 200

    async def stop_under_load() -> tuple[list[httpx.Response], ProgressEvent]:
        body: dict[str, Any] = {
            "task": "countdown",
            "problem": {"numbers": [3, 5, 7, 25], "target": 41},
            "breadth": 256,
            "select": "perplexity",
        }
        async with httpx.AsyncClient(base_url=url, timeout=300) as http, AsyncClient(url) as client:
            # Hot, since samples that the model is sure of are soon done.
            async with client.stream(**body, temperature=2.0, strategy="best_of_n") as events:
                await until_a_candidate(events)
                calls = [asyncio.create_task(http.post("/solve", json=body)) for _ in range(30)]
                # All of them, and the stream.
                while (await http.get("/ready")).json()["searching"] < 31:
                    assert not any(call.done() for call in calls)
                process.terminate()
                await asyncio.sleep(0.5)
                await assert_told_of_the_end(url)
                *_, last = [event async for event in events]
            return await asyncio.gather(*calls), last

    responses, last = asyncio.run(stop_under_load())
    assert {response.status_code for response in responses} == {200}
    reasons = {response.json()["stop_reason"] for response in responses}
    assert "cancelled" in reasons and reasons <= {"cancelled", "exhausted"}
    assert isinstance(last, ResultEvent)
    assert last.result.stop_reason in {"cancelled", "exhausted"}
    process.wait(timeout=300)
    deadline = time.monotonic() + 300
    while any(Path(f"/proc/{pid}").exists() for pid in family):
        assert time.monotonic() < deadline, "a process was left behind"
        time.sleep(0.1)
