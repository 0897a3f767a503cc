"""An engine that answers at once, for actors that are to start in seconds."""

import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from cluster import wait_for
from tests.conftest import ROOT, free_port


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
