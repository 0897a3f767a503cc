"""Callers that close their sending side are answered; those that hang up are noticed."""

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from stepback_server.api.protocol import PatientProtocol
from stepback_server.api.sse import WorkStream
from tests.asgi import listening

PATIENCE = 60
"""Seconds: a slow machine is no failure."""
PARTS = [b"data: %d\n\n" % number for number in range(4)]


class Slow:
    """An application that answers after `seconds`, and notes who hung up."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.gone = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/stream":
            await WorkStream(self, self._parts())(scope, receive, send)
            return
        await receive()
        answer = asyncio.create_task(asyncio.sleep(self.seconds))
        gone = asyncio.ensure_future(receive())
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if gone.done():
            self.gone.set()
            return
        gone.cancel()
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    async def _parts(self) -> AsyncGenerator[bytes]:
        for part in PARTS:
            yield part
            await asyncio.sleep(self.seconds)

    async def ended(self) -> None:
        await asyncio.sleep(PATIENCE)

    async def close(self) -> None:
        self.gone.set()


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Any:
    return request.param


@contextmanager
def serving(app: Slow, loop: Literal["asyncio", "uvloop"]) -> Iterator[int]:
    """The port at which an application is served as `stepback serve` does."""
    config = uvicorn.Config(app, http=PatientProtocol, loop=loop, lifespan="off", log_config=None)
    with listening(config) as port:
        yield port


def head(path: str = "/", version: str = "1.1", *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/{version}", "Host: x", *lines, "", ""]).encode()


def asked(port: int, text: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
    connection.sendall(text)
    return connection


def answer(port: int, text: bytes) -> bytes:
    """Read what comes after the sending side was closed, until the server closes its own."""
    with asked(port, text) as connection:
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize("seconds", [0, 0.4])
@pytest.mark.parametrize("lines", [(), ("Connection: close",)])
def test_a_half_closed_caller_is_answered(loop: Any, seconds: float, lines: tuple[str]) -> None:
    with serving(Slow(seconds), loop) as port:
        got = answer(port, head("/", "1.1", *lines))
    assert got.count(b"HTTP/1.1 200 OK") == 1 and got.endswith(b"\r\n\r\nok")


def test_readers_pass_over_what_looks_for_the_caller(loop: Any) -> None:
    with serving(Slow(0.4), loop) as port, asked(port, head()) as connection:
        connection.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert (response.status, response.read()) == (200, b"ok")


def test_a_half_closed_caller_gets_its_stream(loop: Any) -> None:
    with serving(Slow(0.2), loop) as port, asked(port, head("/stream")) as connection:
        connection.shutdown(socket.SHUT_WR)
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.read() == b"".join(PARTS)
        assert connection.recv(1) == b""


def test_all_pipelined_requests_are_answered(loop: Any) -> None:
    with serving(Slow(0.1), loop) as port:
        got = answer(port, head() + head())
    assert got.count(b"HTTP/1.1 200 OK") == 2


def test_an_old_caller_is_answered_quickly_or_not(loop: Any) -> None:
    with serving(Slow(), loop) as port:
        assert b" 200 OK" in answer(port, head("/", "1.0"))
        assert b"".join(PARTS) in answer(port, head("/stream", "1.0"))
    with serving(slow := Slow(PATIENCE), loop) as port:
        assert answer(port, head("/", "1.0")) == b""
        assert slow.gone.wait(PATIENCE)


@pytest.mark.parametrize("path", ["/", "/stream"])
def test_a_caller_that_hangs_up_is_noticed(loop: Any, path: str) -> None:
    with serving(slow := Slow(PATIENCE), loop) as port:
        connection = asked(port, head(path))
        if path == "/stream":
            connection.recv(65536)
        began = time.monotonic()
        connection.close()
        assert slow.gone.wait(PATIENCE / 2)
        print(f"noticed after {time.monotonic() - began:.2f} s")


def test_half_a_request_is_a_hang_up(loop: Any) -> None:
    with serving(slow := Slow(PATIENCE), loop) as port:
        assert answer(port, head("/", "1.1", "Content-Length: 5") + b"abc") == b""
        assert answer(port, head()[:20]) == b""
        assert slow.gone.wait(PATIENCE)
