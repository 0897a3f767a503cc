"""A real Chromium before the real server, with every request to elsewhere blocked."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.sync_api import Browser, Page, Playwright, Route, expect, sync_playwright
from tests.serving import ROOT, ready_controller

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


class _Scorer(BaseHTTPRequestHandler):
    """Takes every answer for a right one."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        verdicts = [{"id": each["id"], "score": 1.0, "ok": True} for each in body["candidates"]]
        answer = json.dumps({"verdicts": verdicts}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def scorer() -> Iterator[str]:
    """The address of a service that scores answers."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Scorer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/score"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def url_of_a_server(folder: Path) -> Iterator[str]:
    """The address of a controller that is ready, and has a scorer."""
    checkers = folder / "scorers.toml"
    with scorer() as address:
        checkers.write_text(f'[generous]\nurl = "{address}"\n')
        with ready_controller(folder, checkers_file=checkers) as served:
            yield served


@contextmanager
def launched(playwright: Playwright) -> Iterator[Browser]:
    """A Chromium of our own."""
    program = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    browser = playwright.chromium.launch(executable_path=program, args=_FLAGS)
    try:
        yield browser
    finally:
        browser.close()


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with url_of_a_server(tmp_path_factory.mktemp("server")) as served:
        yield served


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright, launched(playwright) as browser:
        yield browser


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
