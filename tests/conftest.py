"""Real parts for the tests: one controller with vLLM on the bundled checkpoint, over real HTTP."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from stepback_server.engine.environment import prepare_environment

ROOT = Path(__file__).parents[1]
CHECKPOINT = ROOT / "models/countdown-5m"

prepare_environment(cpu=True)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def controller(log: Path, model: Path = CHECKPOINT, **settings: object) -> Iterator[str]:
    """A controller as a user starts it; gives its URL once it is ready, and stops it after."""
    port = free_port()
    environment = os.environ | {
        "STEPBACK_PORT": str(port),
        "STEPBACK_MODEL": str(model),
        **{f"STEPBACK_{name.upper()}": str(value) for name, value in settings.items()},
    }
    command = [sys.executable, "-m", "stepback_client.cli", "serve"]
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        url = f"http://127.0.0.1:{port}"
        try:
            wait_until_ready(url, process, log)
            yield url
        finally:
            process.terminate()
            process.wait(timeout=30)


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the controller stopped:\n{log.read_text()[-3000:]}"
        try:
            if httpx.get(f"{url}/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"the controller is not ready:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a ready controller on the bundled checkpoint; one for the whole run."""
    with controller(tmp_path_factory.mktemp("server") / "log.txt") as url:
        yield url
