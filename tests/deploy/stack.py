"""The compose stack as a user runs it, through a real Docker engine."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from stepback_client import Client, StepbackError
from tests.conftest import ROOT, free_port

PROJECT = "stepback-image-test"
CONTROLLER = "stepback-llm/controller:0.2.0"
CPU = "stepback-llm/cpu:0.2.0"


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return _run(["docker", *arguments], os.environ, check)


def can_run() -> bool:
    return bool(shutil.which("docker")) and docker("info", check=False).returncode == 0


@dataclass(frozen=True, slots=True)
class Stack:
    """A project that is up, or was."""

    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def compose(self, *arguments: str) -> str:
        environment = os.environ | {"LISTEN": f"127.0.0.1:{self.port}", "GRACE_SECONDS": "2"}
        command = [*_compose_command(), "--project-name", PROJECT, *arguments]
        return _run(command, environment, check=True).stdout

    def container(self, service: str) -> str:
        return self.compose("ps", "--all", "--quiet", service).strip()

    def inspect(self, service: str) -> dict:
        return json.loads(docker("inspect", self.container(service)).stdout)[0]

    def run_in(self, service: str, shell: str) -> subprocess.CompletedProcess[str]:
        return docker("exec", self.container(service), "sh", "-c", shell, check=False)


@contextmanager
def stack() -> Iterator[Stack]:
    """Built, up and ready; gone at the end. Prometheus and Grafana are left out: their images come
    from a registry, and nothing here is ours but their files."""
    running = Stack(free_port())
    running.compose("build", "controller", "engine")
    try:
        running.compose("up", "--detach", "controller")
        wait_until_ready(running.url)
    except AssertionError as error:
        error.add_note(running.compose("logs", "--tail", "50"))
        running.compose("down", "--volumes")
        raise
    try:
        yield running
    finally:
        running.compose("down", "--volumes", "--timeout", "40")


def wait_until_ready(url: str, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    with Client(url) as client:
        while time.monotonic() < deadline:
            with suppress(StepbackError):
                if client.ready().ready:
                    return
            time.sleep(0.2)
    raise AssertionError(f"{url} is not ready after {seconds} s")


def _compose_command() -> list[str]:
    plugin = docker("compose", "version", check=False).returncode == 0
    return ["docker", "compose"] if plugin else ["docker-compose"]


def _run(
    command: list[str], environment: "os._Environ[str] | dict[str, str]", check: bool
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    output = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert not check or done.returncode == 0, f"{' '.join(command)}:\n{output}"
    return done
