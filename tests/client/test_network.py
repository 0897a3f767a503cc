"""Proxies, certificates and timeouts, as the environment and the call have them."""

import asyncio
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import annotated_types
import httpx
import pytest

from stepback_client import (
    AsyncClient,
    BadSetting,
    Client,
    InvalidRequest,
    Retry,
    StepbackError,
)
from stepback_client.proxies import proxy_for
from stepback_core.schemas.request import LONGEST_SECONDS
from stepback_server.settings import Settings
from tests.client.echo import echo
from tests.client.test_clients import PROBLEM, RESULT, Answers

ONCE = Retry(attempts=1)


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("SSL_CERT_"):
            monkeypatch.delenv(name)


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Hand on what comes until its end, and then the end."""
    while chunk := source.recv(65536):
        sink.sendall(chunk)
    sink.shutdown(socket.SHUT_WR)


@contextmanager
def socks_proxy(target: str) -> Iterator[tuple[str, list[bytes]]]:
    """The address of a SOCKS5 proxy that leads every caller to one server, and the names that it
    was asked for."""
    asked: list[bytes] = []
    to = httpx.URL(target)

    def serve(listener: socket.socket) -> None:
        caller, _ = listener.accept()
        with caller, socket.create_connection((to.host, to.port or 80)) as server:
            assert caller.recv(3) == b"\x05\x01\x00"
            caller.sendall(b"\x05\x00")
            head = caller.recv(5)
            asked.append(caller.recv(head[4]))
            caller.recv(2)
            caller.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
            there = threading.Thread(target=pump, args=[caller, server])
            there.start()
            pump(server, caller)
            there.join()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=[listener])
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}", asked
        thread.join()


@pytest.mark.parametrize("name", ["ALL_PROXY", "all_proxy", "http_proxy"])
@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks", "http"])
def test_loopback_is_asked_directly(
    monkeypatch: pytest.MonkeyPatch, name: str, scheme: str
) -> None:
    monkeypatch.setenv(name, f"{scheme}://127.0.0.1:9")
    with echo() as url:
        for loopback in (url, url.replace("127.0.0.1", "localhost")):
            with Client(loopback, retry=ONCE) as client, pytest.raises(InvalidRequest, match="q"):
                client.solve(prompt="q")


@pytest.mark.parametrize("scheme", ["socks5h", "socks"])
def test_a_socks_proxy_is_used_and_resolves_the_name(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    with echo() as url:
        for kind in (Client, AsyncClient):
            with socks_proxy(url) as (address, asked):
                monkeypatch.setenv("ALL_PROXY", f"{scheme}://{address}")
                client = kind("http://controller.internal", retry=ONCE)
                with pytest.raises(InvalidRequest, match="the question"):
                    if isinstance(client, AsyncClient):
                        asyncio.run(client.solve(prompt="the question"))
                    else:
                        with client:
                            client.solve(prompt="the question")
            assert asked == [b"controller.internal"]


@pytest.mark.parametrize("scheme", ["socks", "socks5", "socks5h"])
def test_a_socks_proxy_without_its_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://user:secret@10.0.0.1:1080")
    monkeypatch.setitem(sys.modules, "socksio", None)
    for kind in (Client, AsyncClient):
        with pytest.raises(StepbackError, match=r"stepback-llm\[socks\]") as refused:
            kind("http://controller.internal")
        assert "secret" not in str(refused.value)


@pytest.mark.parametrize("proxy", ["socks4://u:secret@h:1", "ftp://secret@h", "http://se[cret:x"])
def test_an_unusable_proxy_is_refused_without_its_password(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(BadSetting) as refused:
        Client("http://controller.internal")
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "no_proxy", "proxy"),
    [
        ("http://10.1.2.3:8000", "10.0.0.0/8", None),
        ("http://11.1.2.3:8000", "10.0.0.0/8", "http://proxy:3128"),
        ("http://10.1.2.3", "192.168.0.0/16, 10.1.2.3", None),
        ("http://[fd00::7]:8000", "fd00::/8", None),
        ("http://[2001:db8::7]:8000", "fd00::/8", "http://proxy:3128"),
        ("http://a.internal", ".internal", None),
        ("http://a.internal", "internal", None),
        ("http://a.internal:8000", "a.internal:8000", None),
        ("http://a.internal:8000", "a.internal:9000", "http://proxy:3128"),
        ("http://a.internal", "*", None),
        ("http://a.internal", "*.internal", None),
        ("http://a.internal.org", "*.internal", "http://proxy:3128"),
        ("http://10.1.2.3", "10.*", None),
        ("http://10.1.2.3", "localhost 10.0.0.0/8", None),
        ("http://a.internal", "", "http://proxy:3128"),
        ("http://127.8.9.1", "", None),
        ("http://[::1]:8000", "", None),
        ("https://a.internal", "", "http://secure:3128"),
    ],
)
def test_no_proxy_means_names_ports_and_networks(
    monkeypatch: pytest.MonkeyPatch, url: str, no_proxy: str, proxy: str | None
) -> None:
    monkeypatch.setenv("http_proxy", "proxy:3128")
    monkeypatch.setenv("https_proxy", "http://secure:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert proxy_for(httpx.URL(url)) == proxy


def test_a_certificate_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/authority.pem")
    with pytest.raises(BadSetting, match="SSL_CERT_FILE"):
        Client("https://controller.internal")
    # A server without TLS has nothing to do with it.
    with echo() as url, Client(url) as client, pytest.raises(InvalidRequest, match="q"):
        client.solve(prompt="q")


def read_timeouts(handler: Answers) -> list[float]:
    return [request.extensions["timeout"]["read"] for request in handler.requests]


def test_a_client_waits_for_as_long_as_the_search_may_take() -> None:
    handler = Answers(*(httpx.Response(200, json=RESULT) for _ in range(5)))
    transport = httpx.MockTransport(handler)
    with Client(transport=transport) as client:
        client.solve(PROBLEM, seconds=3600)
        client.solve(PROBLEM, seconds=1)
        client.solve(PROBLEM)

    async def ask() -> None:
        async with AsyncClient(transport=transport) as client:
            await client.solve(PROBLEM, seconds=3600)
            # In the words of HTTP, as `stepback batch` has them.
            body: Any = {"budget": {"seconds": 3600, "answer_tokens": 50}}
            await client.solve(PROBLEM, tokens=7, **body)

    asyncio.run(ask())
    longest, shortest, usual, longest_too, in_a_body = read_timeouts(handler)
    # A server may be set to searches of an hour, and to an hour in its queue.
    most = Settings.model_fields["max_queue_seconds"].metadata
    [queue] = [cast("int", each.le) for each in most if isinstance(each, annotated_types.Le)]
    assert longest == longest_too == in_a_body == usual > LONGEST_SECONDS + queue
    sent = json.loads(handler.requests[-1].content)["budget"]
    assert sent == {"tokens": 7, "seconds": 3600, "answer_tokens": 50}
    assert 1 + queue < shortest < usual
    assert {request.extensions["timeout"]["connect"] for request in handler.requests} == {5.0}


def test_what_is_answered_at_once_is_not_awaited_as_a_search_is() -> None:
    handler = Answers(httpx.Response(422), httpx.Response(422), httpx.Response(422))
    with Client(transport=httpx.MockTransport(handler), retry=ONCE) as client:
        for call in (client.version, client.models, client.ready):
            with pytest.raises(InvalidRequest):
                call()
    assert set(read_timeouts(handler)) == {720.0}


def test_a_timeout_of_ones_own_is_kept_and_a_longer_search_is_refused_unsent() -> None:
    handler = Answers(httpx.Response(200, json=RESULT), httpx.Response(200, json=RESULT))
    with Client(transport=httpx.MockTransport(handler), timeout=30.0) as client:
        client.solve(PROBLEM, seconds=10)
        with pytest.raises(BadSetting, match="timeout of 30 s"):
            client.solve(PROBLEM, seconds=600)
    assert read_timeouts(handler) == [30.0]
    with Client(transport=httpx.MockTransport(handler), timeout=None) as client:
        client.solve(PROBLEM, seconds=600)
    assert read_timeouts(handler)[1] is None
