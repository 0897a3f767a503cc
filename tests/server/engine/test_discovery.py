"""Engines by name: addresses come and go, and no search is lost by it."""

import asyncio
import os
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from stepback_core.errors import InvalidInput
from stepback_server.engine.base import EngineUnavailable, Finish
from stepback_server.engine.discovery import Discovery, resolve_name
from stepback_server.engine.pool import Changes, EnginePool
from stepback_server.engine.supervisor import Supervisor
from stepback_server.settings import Settings
from tests import warm
from tests.conftest import CHECKPOINT, ROOT, free_port, wait_until_ok, wait_until_ready
from tests.server.engine.resolved_controller import NAME
from tests.server.engine.test_pool import CANARY, QUICK, Server, request, sample, until
from tests.server.jobs.conftest import BODY

LOCAL = ("127.0.0.2", "127.0.0.3")


class Names:
    """A resolver whose answer is changed by the test."""

    def __init__(self, *addresses: str) -> None:
        self.answer: Collection[str] | OSError = addresses

    async def __call__(self, host: str, port: int) -> Collection[str]:
        if isinstance(self.answer, OSError):
            raise self.answer
        return self.answer


def look(found: Discovery) -> set[str]:
    return set(asyncio.run(found.look()))


def test_a_name_is_an_engine_at_each_of_its_addresses() -> None:
    urls = ("http://a:1", "dns+http://engines:8000", "dns+http://others/v")
    found = Discovery(urls, Names("10.0.0.1", "fd00::1"))
    assert look(found) == {
        "http://a:1",
        "http://10.0.0.1:8000",
        "http://[fd00::1]:8000",
        "http://10.0.0.1:80/v",
        "http://[fd00::1]:80/v",
    }


def test_the_systems_resolver_is_asked() -> None:
    assert "127.0.0.1" in asyncio.run(resolve_name("localhost", 80))
    with pytest.raises(OSError):
        asyncio.run(resolve_name("no-such-name.invalid", 80))


def test_a_name_without_an_answer_keeps_its_engines() -> None:
    names = Names("10.0.0.1")
    found = Discovery(("dns+http://engines:8000",), names)
    known = look(found)
    for no_answer in (OSError("Temporary failure in name resolution"), ()):
        names.answer = no_answer
        assert look(found) == known
    names.answer = ("10.0.0.2",)
    assert look(found) == {"http://10.0.0.2:8000"}


def test_a_name_is_a_setting_and_only_of_plain_http() -> None:
    settings = Settings.read({"STEPBACK_ENGINE_URLS": "dns+http://engines:8000/"})
    assert settings.engine_urls == ("dns+http://engines:8000",)
    with pytest.raises(InvalidInput):
        Settings.read({"STEPBACK_ENGINE_URLS": "dns+https://engines:8000"})


def test_engines_that_come_and_go_lose_no_sample() -> None:
    servers = {f"http://10.0.0.{number}:8000": Server() for number in range(1, 4)}
    first, second, third = servers.values()
    third.mismatched = True
    names = Names("10.0.0.1")

    async def scenario() -> None:
        found = Discovery(("dns+http://engines:8000",), names)
        pool = EnginePool(
            {},
            Changes(
                found.look,
                lambda url: Supervisor(servers[url].start, CANARY, QUICK, name=url, awaits=True),
                seconds=0.01,
            ),
        )
        with pytest.raises(EngineUnavailable):
            pool.ensure_up()
        running = asyncio.create_task(pool.run())
        await until(lambda: pool.up == 1)
        async with pool.lend() as search:
            await search.sample(request(), asyncio.Event(), lambda each: None)
            before = len(first.requests)
            names.answer = ("10.0.0.2", "10.0.0.3")
            await until(lambda: pool.up == 1 and bool(second.starts))
            for _ in range(20):
                got = await sample(pool, request())
                assert {each.finish for each in got} == {Finish.STOP}
            assert len(first.requests) == before and second.requests
            # The search that has its prefixes at the first one ends there.
            await search.sample(request(), asyncio.Event(), lambda each: None)
            assert len(first.requests) > before
        await until(lambda: third.starts > 1)
        assert not running.done(), "an engine of another model ends nothing"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    async def in_time() -> None:
        async with asyncio.timeout(120):
            await scenario()

    asyncio.run(in_time())


@contextmanager
def answering(host: str, port: int, log: Path) -> Iterator[None]:
    command = "tests.server.jobs.answering_engine", str(port), "0.05", host
    with log.open("w") as output:
        process = warm.start(*command, cwd=ROOT, stdout=output, stderr=output)
    try:
        wait_until_ok(f"http://{host}:{port}/health", process, log)
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def resolved_controller(addresses: Path, port_of_engines: int, log: Path) -> Iterator[str]:
    port = free_port()
    environment = os.environ | {
        "STEPBACK_MODEL": str(CHECKPOINT),
        "STEPBACK_PORT": str(port),
        "STEPBACK_ENGINE_URLS": f"dns+http://{NAME}:{port_of_engines}",
    }
    command = "tests.server.engine.resolved_controller", str(addresses)
    # It replaces how names are resolved before anything is imported.
    with log.open("w") as output:
        process = warm.cold(*command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.mark.slow
def test_a_controllers_load_follows_its_engines_and_no_search_fails(tmp_path: Path) -> None:
    port, addresses = free_port(), tmp_path / "addresses"
    addresses.write_text(LOCAL[0])
    with (
        answering(LOCAL[0], port, tmp_path / "0.txt"),
        answering(LOCAL[1], port, tmp_path / "1.txt"),
        resolved_controller(addresses, port, tmp_path / "controller.txt") as url,
        Load(url) as load,
    ):
        load.go_on_until(lambda: asked(LOCAL[0], port) > 20)
        addresses.write_text(" ".join(LOCAL))
        load.go_on_until(lambda: asked(LOCAL[1], port) > 20)
        addresses.write_text(LOCAL[1])
        load.go_on_until(lambda: is_left(LOCAL[0], port))
        addresses.write_text("")
        load.go_on_until(lambda: asked(LOCAL[1], port) > 50)
    assert load.statuses == {200}


class Load:
    """Four callers that search all the time."""

    def __init__(self, url: str) -> None:
        self.statuses = set[int]()
        self._url = url
        self._is_over = False
        self._pool = ThreadPoolExecutor(4)

    def __enter__(self) -> "Load":
        self._callers = [self._pool.submit(self._call) for _ in range(4)]
        return self

    def _call(self) -> None:
        with httpx.Client(base_url=self._url, timeout=120) as client:
            while not self._is_over:
                self.statuses.add(client.post("/solve", json=BODY).status_code)

    def go_on_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, "the load did not follow"
            assert not any(each.done() for each in self._callers)
            time.sleep(0.2)

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._pool.shutdown()
        for each in self._callers:
            each.result()


def asked(host: str, port: int) -> int:
    return int(httpx.get(f"http://{host}:{port}/told", timeout=60).json()["samples"])


def is_left(host: str, port: int) -> bool:
    """True if an engine gets no request in a second, not even a health check."""
    before = asked(host, port)
    time.sleep(1)
    return asked(host, port) == before
