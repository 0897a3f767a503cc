"""An engine that answers at once, for actors that are to start in seconds."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from cluster import wait_for
from tests.conftest import ROOT, free_port


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/v1/models", timeout=5).is_success
    except httpx.TransportError:
        return False


@contextmanager
def running(module: str) -> Iterator[str]:
    """The URL of an engine of the tests."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", module, str(port), "0.5"], cwd=ROOT)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: answers(url))
        yield url
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def engine() -> Iterator[str]:
    with running("tests.server.jobs.answering_engine") as url:
        yield url


@pytest.fixture
def solving_engine() -> Iterator[str]:
    with running("tests.on_ray.solving_engine") as url:
        yield url
