"""A controller as a child, for tests that run in another environment than the server's.

Needs the standard library alone.
"""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
STEPBACK = ROOT / ".venv/bin/stepback"
MODEL = ROOT / "models/multitask-10m"
_START_SECONDS = 500
"""Timeout of a start on a machine with other work: a quiet one takes twelve seconds."""


@contextmanager
def ready_controller(folder: Path, **settings: object) -> Iterator[str]:
    """The address of a controller that is ready; STEPBACK_ENGINE_URLS saves it an engine."""
    address = f"http://127.0.0.1:{(port := _free_port())}"
    environment = os.environ | {
        "STEPBACK_PORT": str(port),
        "STEPBACK_MODEL": str(MODEL),
        **{f"STEPBACK_{name.upper()}": str(value) for name, value in settings.items()},
    }
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [STEPBACK, "serve"], env=environment, stdout=log, stderr=log, cwd=folder
        )
    try:
        _wait_until_ready(f"{address}/ready", process)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=300)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _wait_until_ready(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server has ended"
        try:
            with urllib.request.urlopen(address, timeout=10):
                return
        except urllib.error.URLError:
            time.sleep(0.5)
    raise AssertionError(f"{address} does not say 200")
