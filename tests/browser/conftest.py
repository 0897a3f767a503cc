"""A real Chromium before the real server, with every request to elsewhere blocked."""

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
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


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a controller that is ready."""
    with ready_controller(tmp_path_factory.mktemp("server")) as address:
        yield address


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
