"""Commands on a local cluster of their own, its actors, and what they wrote."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

SECONDS = 600


def wait_for(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return found


def written(path: Path) -> list[dict[str, Any]]:
    whole = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
    return [json.loads(line) for line in whole.splitlines()]


def actors(driver: int) -> list[psutil.Process]:
    """The processes of actors that a driver's own cluster has."""
    return [
        process
        for process in psutil.Process(driver).children(recursive=True)
        if "SearchActor" in process.name() or "SearchActor" in " ".join(process.cmdline())
    ]


def begin(
    command: Sequence[str | Path], folder: Path, engine: str | None = None
) -> "subprocess.Popen[bytes]":
    """Start a command of stepback in a folder; its actors ask this engine, or their own."""
    environment = {name: each for name, each in os.environ.items() if name != "RAY_ADDRESS"}
    # Actors with their engines are the work here; Ray would give them the lowest priority.
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    if engine is not None:
        environment["STEPBACK_ENGINE_URLS"] = engine
    whole = [sys.executable, "-m", "stepback_client.cli", *command]
    return subprocess.Popen(whole, env=environment, cwd=folder)
