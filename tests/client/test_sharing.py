"""One client in many processes and event loops, and what is handed between them."""

import asyncio
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from stepback_client import (
    AsyncClient,
    AuthenticationError,
    Client,
    ErrorDetail,
    ErrorType,
    InvalidKey,
    InvalidRequest,
    Overloaded,
    Retry,
    StepbackError,
    TransportError,
)
from tests.client.echo import echo
from tests.client.test_clients import PROBLEM, RESULT, Answers

FORKED = """
    import asyncio, os, sys
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context
    from stepback_client import AsyncClient, Client, StepbackError

    blocking, concurrent = Client(sys.argv[1]), AsyncClient(sys.argv[1])

    def is_answered(number):
        text = f"question {os.getpid()} {number}."
        try:
            blocking.solve(prompt=text)
        except StepbackError as error:
            assert text in str(error), error
        try:
            asyncio.run(concurrent.solve(prompt=text))
        except StepbackError as error:
            return text in str(error)

    for _ in range(2):
        assert is_answered(0)
        with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
            assert all(pool.map(is_answered, range(1, 9)))
"""


@pytest.fixture
def url() -> Iterator[str]:
    with echo() as url:
        yield url


def test_each_process_of_a_fork_gets_the_answers_to_its_own_questions(url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORKED), url],
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_an_asyncio_client_serves_one_event_loop_after_another(url: str) -> None:
    client = AsyncClient(url)

    async def ask() -> None:
        with pytest.raises(InvalidRequest, match="the question"):
            await client.solve(prompt="the question")

    for _ in range(3):
        asyncio.run(ask())


def test_an_asyncio_client_serves_event_loops_side_by_side(url: str) -> None:
    client = AsyncClient(url)
    answers: list[bool] = []

    async def ask(text: str) -> None:
        try:
            await client.solve(prompt=text)
        except InvalidRequest as error:
            answers.append(text in str(error))

    async def ask_some(name: str) -> None:
        await asyncio.gather(*(ask(f"question {name} {number}.") for number in range(8)))

    threads = [threading.Thread(target=lambda n=name: asyncio.run(ask_some(n))) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 32


def test_closing_ends_the_connections_of_the_running_loop_alone(url: str) -> None:
    async def ask(client: AsyncClient) -> None:
        for _ in range(2):
            with pytest.raises(InvalidRequest):
                await client.solve(prompt="q")
            await client.close()

    asyncio.run(ask(AsyncClient(url)))


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_client_can_be_pickled(url: str, kind: type[Client] | type[AsyncClient]) -> None:
    client = kind(url, api_key="key", headers={"X-Team": "a"}, retry=Retry(attempts=2))
    again = pickle.loads(pickle.dumps(client))
    with pytest.raises(InvalidRequest, match="the question"):
        if isinstance(again, AsyncClient):
            asyncio.run(again.solve(prompt="the question"))
        else:
            again.solve(prompt="the question")
    if isinstance(client, Client):
        client.close()
        again.close()


DETAIL = ErrorDetail(type=ErrorType.OVERLOADED, message="wait", param="p", code="queue_full")


@pytest.mark.parametrize(
    "error",
    [
        Overloaded(429, DETAIL, 3.0, "r-1"),
        InvalidRequest(422, None, None),
        AuthenticationError(401, DETAIL, None),
        TransportError("GET /ready: refused"),
        InvalidKey("the API key must be printable"),
    ],
)
def test_an_error_is_the_same_in_another_process(error: StepbackError) -> None:
    error.add_note("asked for row 3")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and str(again) == str(error)
    assert vars(again) == vars(error)


def test_the_callers_own_headers_go_along_with_every_request() -> None:
    headers = {"CF-Access-Client-Id": "x", "CF-Access-Client-Secret": "y"}
    handler = Answers(httpx.Response(200, json=RESULT), httpx.Response(200, json=RESULT))
    transport = httpx.MockTransport(handler)
    with Client(api_key="key", headers=headers, transport=transport) as client:
        client.solve(PROBLEM)

    async def ask() -> None:
        async with AsyncClient(api_key="key", headers=headers, transport=transport) as client:
            await client.solve(PROBLEM)

    asyncio.run(ask())
    for request in handler.requests:
        assert request.headers["CF-Access-Client-Secret"] == "y"
        assert request.headers["Authorization"] == "Bearer key"


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"headers": {"X-A": "secret\r\nX-B: 1"}}, "X-A"),
        ({"headers": {"X A": "secret"}}, "X A"),
        ({"headers": {"X-A": b"secret"}}, "X-A"),
        ({"headers": {"X-A": "s\N{LATIN SMALL LETTER E WITH ACUTE}cret"}}, "X-A"),
        ({"headers": {"authorization": "secret"}, "api_key": "secret"}, "Authorization"),
        ({"url": "localhost:8000"}, "http://"),
        ({"url": "http://[::1"}, "http://"),
        ({"url": ""}, "http://"),
    ],
)
def test_what_no_request_can_carry_is_refused_at_once(given: dict[str, Any], named: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(StepbackError, match=named) as refused:
            kind(**given)
        assert "secret" not in str(refused.value)


def test_a_client_takes_the_callers_settings_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STEPBACK_API_KEY", "key")
    monkeypatch.setenv("STEPBACK_HEADERS", "X-A: 1\n\n X-B : two words \n")
    with echo() as url:
        monkeypatch.setenv("STEPBACK_URL", url)
        client = Client.from_environment()
        with pytest.raises(InvalidRequest, match="q"):
            client.solve(prompt="q")
        client.close()
    state = client.__getstate__()["_connection"]
    assert state.headers == {"X-A": "1", "X-B": "two words", "Authorization": "Bearer key"}
    monkeypatch.setenv("STEPBACK_HEADERS", "secret")
    with pytest.raises(StepbackError, match="line 1") as refused:
        Client.from_environment()
    assert "secret" not in str(refused.value)
