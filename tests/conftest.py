"""Real parts for the tests: one controller with vLLM on the bundled checkpoint, over real HTTP."""

import gc
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Any

import httpx
import pytest

from stepback_client import Client
from stepback_core.manifest import Manifest
from stepback_core.tasks import CountdownProblem
from stepback_server.engine.vllm_environment import prepare_environment
from stepback_server.gc_tuning import tune_gc
from stepback_training.generators import GENERATORS, Split
from tests import certificates, warm

ROOT = Path(__file__).parents[1]
CHECKPOINT = ROOT / "models/multitask-10m"
SERVED = Manifest.read(CHECKPOINT).name
"""The name that the bundled checkpoint is served by."""

prepare_environment(cpu=True)
certificates.read_once()

_ENGINE_FIXTURES = {"server", "loadable", "servers", "fleet"}
_SLOW_MODULES = {
    "core/test_isolation.py",
    "deploy/test_images.py",
    "docs/test_notebooks.py",
    "server/engine/test_amx.py",
    "server/engine/test_ends.py",
    "server/engine/test_fork_server.py",
    "server/engine/test_launch.py",
    "server/engine/test_remote.py",
    "server/engine/test_vllm_process.py",
    "server/observability/test_process.py",
    "server/test_defence.py",
    "server/test_faults.py",
    "server/test_stream.py",
    "server/test_operation.py",
    "server/test_plugins.py",
    "server/test_solve_options.py",
    "training/test_adapter.py",
    "training/test_bases.py",
    "training/test_import.py",
    "training/test_improve.py",
    "training/test_multitask.py",
    "training/test_own_errors.py",
    "training/test_own_task.py",
    "training/test_processes.py",
    "training/test_run.py",
    "training/test_sft.py",
    "training/evaluate/test_evaluate.py",
}
"""Modules that start engines or many processes, or train."""


def pytest_configure(config: pytest.Config) -> None:
    # Tests import torch and vLLM: without this the collector takes a sixth of the suite's CPU time.
    tune_gc()
    # Not in xdist's processes: they take part in the run of the one that starts them.
    if not hasattr(config, "workerinput"):
        warm.begin()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: list[Any]) -> None:
    for spec in specs:
        if spec.popen:
            spec.python = warm.python_of_code()


def pytest_unconfigure() -> None:
    warm.end()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts an engine or trains: `make test-fast` leaves it out."""
    for item in items:
        module = item.path.relative_to(ROOT / "tests").as_posix()
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & _ENGINE_FIXTURES or module in _SLOW_MODULES or "/jobs/" in module:
            item.add_marker(pytest.mark.slow)
    # The slow ones first: what is left for the end is short, and no process waits for another.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    # What the test modules have imported stays, too.
    tune_gc()


def pytest_sessionfinish() -> None:
    # Extensions complain at the exit of what nobody has collected.
    gc.unfreeze()


START_SECONDS = 500
"""Timeout of a start on a machine with other work: a quiet one takes twelve seconds."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def start_controller(
    log: Path,
    model: Path = CHECKPOINT,
    start: Any = warm.start,
    **settings: object,
) -> tuple[warm.Running, str]:
    """Start a controller as a user does; gives the process and its URL, before it is ready.
    `start` is `warm.start` or `warm.cold`."""
    port = free_port()
    environment = os.environ | {
        "STEPBACK_PORT": str(port),
        "STEPBACK_MODEL": str(model),
        # Not the file of all who are started in this folder: one would wait for another's lock.
        "STEPBACK_DATABASE_URL": f"sqlite:///{log.with_suffix('.db')}",
        **{f"STEPBACK_{name.upper()}": str(value) for name, value in settings.items()},
    }
    with log.open("w") as output:
        process = start(warm.STEPBACK, "serve", env=environment, stdout=output, stderr=output)
    return process, f"http://127.0.0.1:{port}"


@dataclass(frozen=True)
class Controller:
    """A controller's process, that a test may break."""

    process: warm.Running
    url: str
    log: Path


@contextmanager
def started_controller(log: Path, **settings: object) -> Iterator[Controller]:
    """A controller that may not be ready yet; killed at the end."""
    process, url = start_controller(log, CHECKPOINT, **settings)
    try:
        yield Controller(process, url, log)
    finally:
        process.kill()
        process.wait()


@contextmanager
def controller(
    log: Path,
    model: Path = CHECKPOINT,
    start: Any = warm.start,
    **settings: object,
) -> Iterator[str]:
    """A controller that is ready; stopped at the end."""
    process, url = start_controller(log, model, start, **settings)
    try:
        wait_until_ready(url, process, log)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(timeout=300)
        finally:
            process.kill()
            process.wait()


def wait_until_ready(url: str, process: warm.Running, log: Path) -> None:
    wait_until_ok(f"{url}/ready", process, log)


def wait_until_ok(address: str, process: warm.Running, log: Path) -> None:
    """Wait for a process of ours to answer 200 there."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the process stopped:\n{log.read_text()[-3000:]}"
        try:
            if httpx.get(address, timeout=300).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"{address} does not say 200:\n{log.read_text()[-3000:]}")


def held_out(count: int) -> list[CountdownProblem]:
    """The same problems with seen targets, that no training saw."""
    return list(islice(GENERATORS["countdown"].stream(Split.TEST_SEEN, Random(5)), count))


@pytest.fixture(scope="session")
def reload_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder from which the controller of the whole run takes new weights. A test that loads some
    asks for `loadable`, which puts the bundled ones back."""
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, reload_root: Path) -> Iterator[str]:
    """The URL of a ready controller on the bundled checkpoint; one for the whole run."""
    log = tmp_path_factory.mktemp("server") / "log.txt"
    with controller(log, reload_root=reload_root) as url:
        yield url


@pytest.fixture
def loadable(server: str, reload_root: Path) -> Iterator[tuple[str, Path]]:
    """The shared controller, and an empty folder. Weights are taken from it in this test alone."""
    folder = Path(mkdtemp(dir=reload_root))
    yield server, folder
    with Client(server) as client:
        client.reload(SERVED, str(CHECKPOINT))


@pytest.fixture(scope="session")
def knows_countdown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a controller whose model knows Countdown alone. It has no engine."""
    folder = tmp_path_factory.mktemp("countdown")
    model = shutil.copytree(CHECKPOINT, folder / "model")
    manifest = json.loads((model / "stepback.json").read_text()) | {"tasks": ["countdown"]}
    (model / "stepback.json").write_text(json.dumps(manifest))
    log = folder / "log.txt"
    process, url = start_controller(log, model, engine_urls="http://127.0.0.1:9")
    try:
        wait_until_ok(f"{url}/health", process, log)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=300)
