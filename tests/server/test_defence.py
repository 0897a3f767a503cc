"""Keys, limits and idempotency on a real controller, over real HTTP."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from stepback_client import (
    AsyncClient,
    AuthenticationError,
    Client,
    CountdownProblem,
    Overloaded,
    Retry,
    SolveResult,
)
from stepback_core.schemas import ErrorBody
from stepback_server.gateway.keys import new_key
from tests import warm
from tests.conftest import start_controller, wait_until_ready

PROBLEM = CountdownProblem(numbers=[3, 5, 7, 25], target=41)
BODY: dict[str, Any] = {"task": "countdown", "problem": PROBLEM.model_dump()}
ONCE = Retry(attempts=1)


@dataclass
class Guarded:
    """A controller with keys."""

    process: warm.Running
    url: str
    log: Path
    file: Path
    keys: dict[str, str]

    def headers(self, name: str, **more: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[name]}"} | more

    def post(self, name: str, body: dict[str, Any] | None = None, **headers: str) -> httpx.Response:
        sent = {key.replace("_", "-"): value for key, value in headers.items()}
        return httpx.post(
            f"{self.url}/solve",
            json=body or BODY,
            headers=self.headers(name, **sent),
            timeout=300,
        )

    def count(self, metric: str) -> float:
        lines = httpx.get(f"{self.url}/metrics", timeout=300).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(metric))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    log, file = folder / "log.txt", folder / "keys.toml"
    limits: dict[str, tuple[int | None, int | None]] = {
        "alice": (None, None),
        "bob": (2, None),
        "carol": (None, 300),
    }
    made = {name: new_key(name, *limit) for name, limit in limits.items()}
    file.write_text("\n".join(line for _, line in made.values()))
    # As verbose as it gets, since nothing that it says may hold a key.
    process, url = start_controller(log, keys_file=file, log_level="debug")
    try:
        wait_until_ready(url, process, log)
        keys = {name: key for name, (key, _) in made.items()}
        yield Guarded(process, url, log, file, keys)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("path", ["/health", "/ready", "/version", "/metrics"])
def test_what_operates_the_server_is_open(guarded: Guarded, path: str) -> None:
    assert httpx.get(guarded.url + path, timeout=300).status_code == 200


@pytest.mark.parametrize(("method", "path"), [("POST", "/solve"), ("GET", "/v1/models")])
@pytest.mark.parametrize(
    ("authorization", "code", "challenge"),
    [
        (None, "missing_key", "Bearer"),
        ("", "missing_key", "Bearer"),
        ("Bearer", "missing_key", "Bearer"),
        ("Basic YTpi", "missing_key", "Bearer"),
        ("Bearer wrong", "unknown_key", 'Bearer error="invalid_token"'),
        ("Bearer \xff\xfe", "unknown_key", 'Bearer error="invalid_token"'),
    ],
)
def test_without_a_key_that_is_known_the_answer_is_401(
    guarded: Guarded, method: str, path: str, authorization: str | None, code: str, challenge: str
) -> None:
    sent = [] if authorization is None else [authorization.encode("latin-1")]
    headers = [(b"Authorization", value) for value in sent]
    body = {"breadth": "of the wrong type, which only those with a key are told"}
    answer = httpx.request(
        method,
        guarded.url + path,
        headers=headers,
        json=body if method == "POST" else None,
        timeout=300,
    )
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == challenge
    error = ErrorBody.model_validate_json(answer.content).error
    assert (error.type, error.code) == ("authentication", code)
    assert "wrong" not in answer.text


def test_with_a_key_it_solves_and_the_client_has_an_error_for_the_rest(guarded: Guarded) -> None:
    with Client(guarded.url, api_key=guarded.keys["alice"]) as client:
        assert client.solve(PROBLEM).usage.generated_tokens > 0
        assert client.models().data
    with Client(guarded.url) as client, pytest.raises(AuthenticationError) as refusal:
        client.solve(PROBLEM)
    assert refusal.value.code == "missing_key"
    assert guarded.count('stepback_key_searches_total{key="alice"}') >= 1


@pytest.mark.parametrize(("key", "status"), [("alice", 0), (None, 2), ("secret\n", 2)])
def test_the_command_takes_its_key_from_the_environment(
    guarded: Guarded, key: str | None, status: int
) -> None:
    secret = {"STEPBACK_API_KEY": guarded.keys.get(key, key)} if key else {}
    command = (
        "solve",
        *["4", "16", "25", "82", "--target", "95", "--seed", "1", "--url"],
        guarded.url,
    )
    done = warm.stepback(*command, env=os.environ | secret)
    assert done.returncode == status, done.stderr
    assert "secret" not in done.stderr and "Traceback" not in done.stderr


def test_tokens_a_minute_end_in_429_that_says_when(guarded: Guarded) -> None:
    started = time.monotonic()
    with Client(guarded.url, api_key=guarded.keys["carol"], retry=ONCE) as client:
        result = client.solve(PROBLEM, select="perplexity", breadth=32, tokens=400)
        assert result.usage.generated_tokens > 320
        with pytest.raises(Overloaded) as refusal:
            client.solve(PROBLEM)
    assert refusal.value.code == "tokens_per_minute"
    debt = result.usage.generated_tokens - 300
    assert refusal.value.retry_after is not None
    # It is paid off from the moment on that it is made.
    earliest = debt / 5 - (time.monotonic() - started)
    assert earliest - 1 <= refusal.value.retry_after <= debt / 5 + 1
    assert guarded.post("alice").status_code == 200


def test_a_keys_own_limit_holds_beside_another(guarded: Guarded) -> None:
    async def scenario() -> None:
        async with httpx.AsyncClient(base_url=guarded.url, timeout=300) as http:
            body = BODY | {
                "strategy": "self_backtracking",
                "select": "perplexity",
                "breadth": 256,
                "backtracks": 8,
            }
            body |= {"budget": {"seconds": 1.0}}
            calls = [
                asyncio.create_task(http.post("/solve", json=body, headers=guarded.headers("bob")))
                for _ in range(4)
            ]
            most = 0
            while not all(call.done() for call in calls):
                state = (await http.get("/ready")).json()
                most = max(most, state["searching"])
                await asyncio.sleep(0.02)
            assert {(await call).status_code for call in calls} == {200}
            assert most == 2

    asyncio.run(scenario())


# --- idempotency ---


def test_a_repeated_request_is_paid_once(guarded: Guarded) -> None:
    async def twice() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=guarded.url, timeout=300) as http:
            headers = guarded.headers("alice", **{"Idempotency-Key": "twice"})
            return await asyncio.gather(
                *(http.post("/solve", json=BODY, headers=headers) for _ in range(2))
            )

    before = guarded.count("stepback_searches_total")
    answers = [*asyncio.run(twice()), guarded.post("alice", Idempotency_Key="twice")]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert len({answer.content for answer in answers}) == 1
    replayed = sorted(answer.headers.get("Idempotent-Replayed", "") for answer in answers)
    assert replayed == ["", "true", "true"]
    SolveResult.model_validate_json(answers[0].content)
    assert guarded.count("stepback_searches_total") == before + 1
    assert guarded.log.read_text().count("replayed=True") == 2
    # Another key's holder asks for himself.
    assert "Idempotent-Replayed" not in guarded.post("bob", Idempotency_Key="twice").headers
    mismatch = guarded.post("alice", BODY | {"seed": 1}, Idempotency_Key="twice")
    assert mismatch.status_code == 422
    assert mismatch.json()["error"]["code"] == "idempotency_mismatch"


@pytest.mark.parametrize("key", ["", "a" * 256, "a b"])
def test_an_idempotency_key_is_short_and_printable(guarded: Guarded, key: str) -> None:
    answer = guarded.post("alice", Idempotency_Key=key)
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "idempotency-key"


def test_an_error_is_not_kept(guarded: Guarded) -> None:
    bad = guarded.post("alice", BODY | {"model": "another"}, Idempotency_Key="mended")
    assert bad.status_code == 404
    good = guarded.post("alice", BODY, Idempotency_Key="mended")
    assert good.status_code == 200 and "Idempotent-Replayed" not in good.headers


def test_one_of_two_hangs_up_then_both(guarded: Guarded) -> None:
    slow = BODY | {
        "strategy": "self_backtracking",
        "sampling": "independent",
        "select": "perplexity",
        "breadth": 256,
        "backtracks": 16,
    }

    async def scenario() -> None:
        async with httpx.AsyncClient(base_url=guarded.url, timeout=300) as http:

            async def state() -> dict[str, Any]:
                return (await http.get("/ready")).json()

            async def ask(key: str) -> asyncio.Task[httpx.Response]:
                headers = guarded.headers("alice", **{"Idempotency-Key": key})
                call = asyncio.create_task(http.post("/solve", json=slow, headers=headers))
                while not (await state())["running"]:
                    assert not call.done()
                return call

            for number in range(2):
                first = await ask(f"left-{number}")
                second = await ask(f"left-{number}")
                await asyncio.sleep(0.1)
                first.cancel()
                await asyncio.sleep(0.2)
                assert (await state())["searching"] == 1, "the other one still waits"
                if number == 0:
                    assert (await second).status_code == 200
                else:
                    second.cancel()
                    deadline = time.monotonic() + 300
                    while (await state())["searching"]:
                        assert time.monotonic() < deadline
                        await asyncio.sleep(0.05)

    asyncio.run(scenario())


class LosesTheFirstAnswer(httpx.HTTPTransport):
    """The network, where the answer to the first request is lost once the server has sent it."""

    lost = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        if not self.lost:
            self.lost = True
            response.read()
            raise httpx.ReadError("connection reset", request=request)
        return response


def test_a_retry_after_a_lost_answer_gets_that_answer(guarded: Guarded) -> None:
    before = guarded.count("stepback_searches_total")
    transport = LosesTheFirstAnswer()
    with Client(guarded.url, api_key=guarded.keys["alice"], transport=transport) as client:
        assert client.solve(PROBLEM).usage.generated_tokens > 0
    assert transport.lost
    assert guarded.count("stepback_searches_total") == before + 1


# --- two tenants at once ---


def test_two_tenants_interleaved_get_each_his_own(guarded: Guarded) -> None:
    async def scenario() -> None:
        async with (
            AsyncClient(guarded.url, api_key=guarded.keys["alice"]) as alice,
            AsyncClient(guarded.url, api_key=guarded.keys["bob"]) as bob,
        ):
            await asyncio.gather(*(ask((alice, bob)[n % 2], n) for n in range(60)))

    async def ask(client: AsyncClient, number: int) -> None:
        problem = CountdownProblem(numbers=[1 + number, 5, 7], target=10 + number)
        strategy = ("greedy", "best_of_n", "majority")[number % 3]
        breadth = 2 + number % 5
        result = await client.solve(
            problem, strategy=strategy, breadth=breadth, tree=True, seed=number, widening=False
        )
        assert result.strategy == strategy
        assert result.usage.engine_requests == (1 if strategy == "greedy" else breadth)
        assert len(result.tree or []) == result.usage.engine_requests + 1
        assert result.usage.prompt_tokens == 1 + len(f":{1 + number},5,7={10 + number}\n")

    asyncio.run(scenario())


# --- the operator ---


def test_keys_are_read_again_on_sighup_and_stay_where_the_file_is_broken(guarded: Guarded) -> None:
    dave, line = new_key("dave")
    guarded.keys["dave"] = dave
    good = f"{guarded.file.read_text()}\n{line}\n"

    def reload(text: str, said: str) -> None:
        guarded.file.write_text(text)
        guarded.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 300
        while said not in guarded.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    assert guarded.post("dave").status_code == 401
    reload(good, "read again")
    assert guarded.post("dave").status_code == 200
    reload("dave =", "stay as they were")
    assert guarded.post("dave").status_code == 200


def test_no_key_was_ever_logged(guarded: Guarded) -> None:
    """The last of this file: after all of the above, right keys and wrong ones."""
    guarded.post("alice")
    for wrong in ("stepback_wrong-key-of-somebody", guarded.keys["alice"] + "x"):
        httpx.post(
            f"{guarded.url}/solve", headers={"Authorization": f"Bearer {wrong}"}, timeout=300
        )
    # A proxy's header, which a log might take for the caller's address.
    guarded.post("alice", X_Forwarded_For=guarded.keys["alice"])
    address = ("127.0.0.1", urlsplit(guarded.url).port)
    for rubbish in (
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nrubbish\r\n\r\n",
        b"HEAD /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ):
        with socket.create_connection(address) as connection:
            connection.sendall(rubbish)
            assert connection.recv(1000).startswith(b"HTTP/1.1 ")
    text = guarded.log.read_text()
    assert "401" in text and "200" in text
    secrets = [*guarded.keys.values(), "stepback_wrong-key"]
    assert not [secret for secret in secrets if secret in text]
    assert "Bearer" not in text and "Traceback" not in text
