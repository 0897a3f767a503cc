"""Controllers over one engine that answers at once: real processes, real HTTP, a real database."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import warm
from tests.conftest import ROOT, free_port, start_controller, wait_until_ok, wait_until_ready
from tests.postgres import Postgres, postgres
from tests.server.jobs.answering_engine import PROBLEM

SECONDS_PER_SAMPLE = 0.05
BODY: dict[str, Any] = {"task": "countdown", "problem": PROBLEM, "strategy": "greedy"}


def wait_for(found: Callable[[], Any], seconds: float = 300.0) -> Any:
    """Wait until a call gives what is true, and return that."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)
    return value


# They end with the tests of this folder: a controller that waits takes some of a core.
@pytest.fixture(scope="package")
def cluster() -> Iterator[Postgres]:
    with postgres() as started:
        yield started


@pytest.fixture(scope="package")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the engine."""
    with answering_engine(tmp_path_factory.mktemp("answering"), SECONDS_PER_SAMPLE) as url:
        yield url


@contextmanager
def answering_engine(folder: Path, seconds: float) -> Iterator[str]:
    """The URL of an engine of one's own."""
    log, port = folder / "engine.txt", free_port()
    command = "tests.server.jobs.answering_engine", str(port), str(seconds)
    with log.open("w") as output:
        process = warm.start(*command, cwd=ROOT, stdout=output, stderr=output)
    try:
        wait_until_ok(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@dataclass
class Controllers:
    """Starts controllers over that engine, and stops what is left of them."""

    engine: str
    folder: Path
    processes: list[warm.Running] = field(default_factory=list)

    def start(self, start: Any = warm.start, **settings: Any) -> tuple[warm.Running, str]:
        """Start one that is ready."""
        log = self.folder / f"{len(self.processes)}.txt"
        given: dict[str, Any] = {"lease_seconds": 2, "grace_seconds": 0.2}
        given |= {"database_url": f"sqlite:///{self.folder}/jobs.db"}
        process, url = start_controller(
            log, start=start, engine_urls=self.engine, **(given | settings)
        )
        self.processes.append(process)
        wait_until_ready(url, process, log)
        return process, url

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(timeout=300)
            finally:
                process.kill()


@pytest.fixture
def controllers(engine: str, tmp_path: Path) -> Iterator[Controllers]:
    """Controllers of a test that starts, kills and restarts its own."""
    started = Controllers(engine, tmp_path)
    yield started
    started.stop()


@pytest.fixture(scope="package")
def jobs_server(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of one controller for the tests that only ask; it is open to all."""
    started = Controllers(engine, tmp_path_factory.mktemp("jobs"))
    _, url = started.start()
    with httpx.Client(base_url=url, timeout=300) as client:
        yield client
    started.stop()


def upload(client: httpx.Client, *lines: str) -> str:
    """Upload a batch's input, and return its id."""
    content = "\n".join(lines).encode()
    files, data = {"file": ("in.jsonl", content)}, {"purpose": "batch"}
    answer = client.post("/v1/files", files=files, data=data)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def begin(client: httpx.Client, file: str, **fields: Any) -> dict[str, Any]:
    """Begin a batch."""
    body = {"input_file_id": file, "endpoint": "/solve", "completion_window": "24h"} | fields
    answer = client.post("/v1/batches", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def batch_in(client: httpx.Client, id: str, *statuses: str) -> dict[str, Any]:
    """Wait until a batch has one of these statuses."""

    def found() -> dict[str, Any] | None:
        batch = client.get(f"/v1/batches/{id}").json()
        return batch if batch["status"] in statuses else None

    return dict(wait_for(found))


def lines_of(client: httpx.Client, file: str | None) -> list[str]:
    """The lines of an output file."""
    return [] if file is None else client.get(f"/v1/files/{file}/content").text.splitlines()
