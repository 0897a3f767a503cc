"""Two real vLLM servers, and a controller over them in an environment without torch and vLLM."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from stepback_server.checkpoint import Checkpoint
from stepback_server.commands.engine import server_flags
from stepback_server.settings import Settings
from tests import warm
from tests.conftest import CHECKPOINT, ROOT, free_port, wait_until_ok, wait_until_ready
from tests.process_tree import cores_below

_SERVER = "tests.server.engine.vllm_server"
_HEAVY = ("torch", "vllm", "triton", "functorch", "stepback", "__editable__")


class VllmServer:
    """A vLLM server on a port of its own, with the flags of `stepback engine`, and nobody who would
    replace it."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        settings = Settings.read({}, ["--port", str(self._port)])
        flags = self.flags(settings, Checkpoint.open(CHECKPOINT))
        with self._log.open("a") as output:
            self.process = warm.start(_SERVER, *flags, stdout=output, stderr=output)

    @staticmethod
    def flags(settings: Settings, checkpoint: Checkpoint) -> list[str]:
        return server_flags(settings, checkpoint)

    def wait_until_up(self) -> None:
        wait_until_ok(f"{self.url}/health", self.process, self._log)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    def send_to_core(self, number: signal.Signals) -> None:
        for core in cores_below(self.process.pid):
            os.kill(core, number)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def metric(self, name: str) -> int:
        lines = httpx.get(f"{self.url}/metrics", timeout=300).text.splitlines()
        return sum(round(float(li.rpartition(" ")[2])) for li in lines if li.startswith(name + "{"))

    @property
    def running(self) -> int:
        return self.metric("vllm:num_requests_running") + self.metric("vllm:num_requests_waiting")


@dataclass(frozen=True)
class Fleet:
    """Two servers and the controller over them."""

    servers: tuple[VllmServer, VllmServer]
    url: str
    pid: int


@contextmanager
def two_servers(folder: Path) -> Iterator[tuple[VllmServer, VllmServer]]:
    """Started side by side; stopped at the end."""
    both = (VllmServer(folder / "a.txt"), VllmServer(folder / "b.txt"))
    try:
        for each in both:
            each.wait_until_up()
        yield both
    finally:
        for each in both:
            each.stop()


# They end with the tests of this folder: a server that waits takes some of a core.
@pytest.fixture(scope="package")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[VllmServer, VllmServer]]:
    with two_servers(tmp_path_factory.mktemp("vllm")) as both:
        yield both


@pytest.fixture(scope="session")
def light_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Every installed package but torch and vLLM; to be used by `python -S`."""
    links = tmp_path_factory.mktemp("site-packages")
    for package in Path(httpx.__file__).parents[1].iterdir():
        is_ours = package.name.startswith("stepback_llm-") and package.suffix == ".dist-info"
        if is_ours or not package.name.startswith(_HEAVY):
            (links / package.name).symlink_to(package)
    paths = [links, *(ROOT / folder for folder in ("core", "client", "server"))]
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}


@pytest.fixture(scope="package")
def fleet(
    servers: tuple[VllmServer, VllmServer],
    light_environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Fleet]:
    log = tmp_path_factory.mktemp("fleet") / "log.txt"
    port = free_port()
    environment = light_environment | {
        "STEPBACK_PORT": str(port),
        "STEPBACK_MODEL": str(CHECKPOINT),
        "STEPBACK_DATABASE_URL": f"sqlite:///{log.with_suffix('.db')}",
        "STEPBACK_ENGINE_URLS": ",".join(each.url for each in servers),
        # A slow machine must not end a search that a test wants whole.
        "STEPBACK_BUDGET_SECONDS": "800",
    }
    command = [sys.executable, "-S", "-m", "stepback_client.cli", "serve"]
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, process, log)
        yield Fleet(servers, url, process.pid)
    finally:
        process.terminate()
        process.wait(timeout=300)
