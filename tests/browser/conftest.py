"""A real Chromium before the real server, with every request to elsewhere blocked."""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

ROOT = Path(__file__).parents[2]
STEPBACK = ROOT / ".venv/bin/stepback"
SHOTS = ROOT / "runs/screenshots"
PATIENCE = 120_000
"""Milliseconds for whatever a test waits for: a slow machine is no failure."""
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a controller that is ready; STEPBACK_ENGINE_URLS saves it an engine."""
    folder = tmp_path_factory.mktemp("server")
    address = f"http://127.0.0.1:{(port := _free_port())}"
    environment = os.environ | {
        "STEPBACK_PORT": str(port),
        "STEPBACK_MODEL": str(ROOT / "models/multitask-10m"),
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


def _wait_until_ready(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server has ended"
        try:
            with urllib.request.urlopen(address, timeout=10):
                return
        except urllib.error.URLError:
            time.sleep(0.5)
    raise AssertionError(f"{address} does not say 200")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        program = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=program, args=_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """The server's page, opened at its address. Fails on a script's error and on any request to
    elsewhere."""
    page = browser.new_page(viewport={"width": 1300, "height": 850})
    page.set_default_timeout(PATIENCE)
    faults: list[str] = []

    def only_the_server(route: Route) -> None:
        if route.request.url.startswith((url, "blob:", "data:")):
            route.continue_()
        else:
            faults.append(f"asked for {route.request.url}")
            route.abort()

    page.route("**/*", only_the_server)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(url)
    page.get_by_role("button", name="Solve").wait_for()
    yield page
    page.close()
    assert not faults
