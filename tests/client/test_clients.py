"""Both clients against answers that a hand-made transport gives."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from stepback_client import (
    ApiError,
    AsyncClient,
    AuthenticationError,
    Client,
    CountdownProblem,
    InvalidRequest,
    NotFound,
    Overloaded,
    Readiness,
    Retry,
    SolveResult,
    StepbackError,
    TransportError,
    Unavailable,
)

PROBLEM = CountdownProblem(numbers=[3, 5, 7, 25], target=41)
RESULT: dict[str, Any] = {
    "id": "s-1",
    "status": "solved",
    "stop_reason": "solved",
    "strategy": "self_backtracking",
    "select": "verified",
    "model": "m",
    "answer": None,
    "candidates": [],
    "usage": {
        "prompt_tokens": 1,
        "generated_tokens": 2,
        "discarded_tokens": 0,
        "cached_tokens": 0,
        "engine_requests": 1,
        "backtracks": 0,
        "seconds_queued": 0.0,
        "seconds_searching": 0.1,
    },
    "tree": None,
}
FAST = Retry(attempts=3, first_wait=0.001, longest_wait=0.01)

Handler = Callable[[httpx.Request], httpx.Response]
Solve = Callable[..., SolveResult]


def solve_blocking(handler: Handler, **options: Any) -> SolveResult:
    with Client(transport=httpx.MockTransport(handler), retry=FAST) as client:
        return client.solve(PROBLEM, **options)


def solve_async(handler: Handler, **options: Any) -> SolveResult:
    async def run() -> SolveResult:
        async with AsyncClient(transport=httpx.MockTransport(handler), retry=FAST) as client:
            return await client.solve(PROBLEM, **options)

    return asyncio.run(run())


both = pytest.mark.parametrize("solve", [solve_blocking, solve_async])


def error(status: int, **headers: str) -> httpx.Response:
    detail = {"type": "invalid_request", "message": "do that", "param": "breadth", "code": "c"}
    return httpx.Response(status, json={"error": detail}, headers=headers)


class Answers:
    """Gives its answers one after another, and keeps the requests."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@both
def test_a_result_is_typed_and_only_what_was_said_is_sent(solve: Solve) -> None:
    handler = Answers(httpx.Response(200, json=RESULT))
    result = solve(handler, breadth=4, tokens=100)
    assert isinstance(result, SolveResult) and result.status == "solved"
    [request] = handler.requests
    assert request.url.path == "/solve"
    assert json.loads(request.content) == {
        "task": "countdown",
        "problem": {"numbers": [3, 5, 7, 25], "target": 41},
        "breadth": 4,
        "budget": {"tokens": 100},
    }


@both
@pytest.mark.parametrize(
    ("status", "kind"), [(400, InvalidRequest), (404, NotFound), (422, InvalidRequest)]
)
def test_errors_are_typed_and_not_tried_again(
    solve: Solve, status: int, kind: type[ApiError]
) -> None:
    handler = Answers(error(status))
    with pytest.raises(kind, match="do that") as raised:
        solve(handler)
    assert (raised.value.status, raised.value.param, raised.value.code) == (status, "breadth", "c")
    assert isinstance(raised.value, StepbackError)


@both
@pytest.mark.parametrize("status", [408, 429, 502, 503, 504, 524, 530])
def test_a_busy_server_or_gateway_is_tried_again(solve: Solve, status: int) -> None:
    page = httpx.Response(status, text="<html>a gateway's own page</html>")
    handler = Answers(error(status), page, httpx.Response(200, json=RESULT))
    assert solve(handler).id == "s-1"
    assert len({request.headers["Idempotency-Key"] for request in handler.requests}) == 1
    assert len(handler.requests) == 3


@both
@pytest.mark.parametrize(("status", "kind"), [(429, Overloaded), (503, Unavailable)])
def test_trying_again_is_bounded(solve: Solve, status: int, kind: type[ApiError]) -> None:
    handler = Answers(*(error(status, **{"Retry-After": "0"}) for _ in range(3)))
    with pytest.raises(kind) as raised:
        solve(handler)
    assert raised.value.retry_after == 0
    assert handler.answers == []


@both
def test_a_wait_that_is_too_long_is_raised_at_once_and_says_when(solve: Solve) -> None:
    handler = Answers(error(429, **{"Retry-After": "200"}))
    with pytest.raises(Overloaded) as raised:
        solve(handler)
    assert raised.value.retry_after == 200 and len(handler.requests) == 1


@both
@pytest.mark.parametrize(
    "lost",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("a pod that is gone"),
        httpx.ProxyError("503 of the proxy"),
        httpx.ReadError(""),
        httpx.RemoteProtocolError("closed"),
    ],
)
def test_a_lost_connection_is_tried_again_as_the_same_request(
    solve: Solve, lost: httpx.TransportError
) -> None:
    handler = Answers(lost, error(503), httpx.Response(200, json=RESULT))
    assert solve(handler).id == "s-1"
    first, *others = [request.headers["Idempotency-Key"] for request in handler.requests]
    assert others == [first, first]
    again = Answers(httpx.Response(200, json=RESULT))
    solve(again)
    assert again.requests[0].headers["Idempotency-Key"] != first


@both
def test_lost_connections_are_bounded_and_a_timeout_is_not_tried_again(solve: Solve) -> None:
    with pytest.raises(TransportError, match="ReadError"):
        solve(Answers(*(httpx.ReadError("") for _ in range(3))))
    with pytest.raises(TransportError, match="slow"):
        solve(Answers(httpx.ReadTimeout("slow")))


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_the_key_is_never_shown(kind: type[Client] | type[AsyncClient]) -> None:
    client = kind(api_key="secret")
    assert "secret" not in f"{client!r} {client}"
    for bad in ("", "secret\n", "secret key", "s\N{LATIN SMALL LETTER E WITH ACUTE}cret"):
        with pytest.raises(ValueError, match="API key") as refusal:
            kind(api_key=bad)
        assert "secret" not in str(refusal.value)


@both
def test_a_refused_key_is_an_error_of_its_own(solve: Solve) -> None:
    with pytest.raises(AuthenticationError, match="do that"):
        solve(Answers(error(401, **{"WWW-Authenticate": "Bearer"})))


@both
def test_an_answer_that_is_not_ours_is_still_one_of_our_errors(solve: Solve) -> None:
    with pytest.raises(Unavailable, match="502"):
        solve(Answers(*(httpx.Response(502, text="<html>bad gateway</html>") for _ in range(3))))
    with pytest.raises(StepbackError, match="not a Stepback answer"):
        solve(Answers(httpx.Response(200, text="<html>a login page</html>")))


@both
@pytest.mark.parametrize("options", [{"breadth": 0}, {"strategy": "dfs"}, {"depth": 3}])
def test_bad_arguments_are_refused_unsent(solve: Solve, options: dict[str, Any]) -> None:
    handler = Answers()
    with pytest.raises(ValidationError):
        solve(handler, **options)
    assert handler.requests == []


@pytest.mark.parametrize("status", [200, 503])
def test_readiness_is_an_answer_either_way(status: int) -> None:
    state = {"ready": status == 200, "reason": None, "searching": 0, "queued": 0}
    state |= {"running": 0, "restarts": 0}
    handler = Answers(httpx.Response(status, json=state), httpx.Response(503, text="<html>"))
    with Client(transport=httpx.MockTransport(handler)) as client:
        assert client.ready().ready == (status == 200)
        with pytest.raises(StepbackError, match="not a Stepback answer"):
            client.ready()


STATE = {"searching": 0, "queued": 0, "running": 0, "restarts": 0}
STARTING = STATE | {"ready": False, "reason": "the engine is still starting"}


def not_yet() -> httpx.Response:
    return httpx.Response(503, json=STARTING)


def wait_until_ready(handler: Answers, seconds: float) -> Readiness:
    with Client(transport=httpx.MockTransport(handler)) as client:
        return client.wait_until_ready(seconds)


def await_until_ready(handler: Answers, seconds: float) -> Readiness:
    async def waited() -> Readiness:
        async with AsyncClient(transport=httpx.MockTransport(handler)) as client:
            return await client.wait_until_ready(seconds)

    return asyncio.run(waited())


@pytest.mark.parametrize("wait", [wait_until_ready, await_until_ready])
def test_a_server_that_starts_is_waited_for(wait: Callable[[Answers, float], Readiness]) -> None:
    refused, gone = httpx.ConnectError("refused"), httpx.Response(502)
    handler = Answers(refused, gone, not_yet(), httpx.Response(200, json=STATE | {"ready": True}))
    assert wait(handler, 300.0).ready and len(handler.requests) == 4
    with pytest.raises(TransportError, match="not ready within 0 s: the engine is still starting"):
        wait(Answers(not_yet()), 0.0)
    with pytest.raises(AuthenticationError):
        wait(Answers(error(401)), 300.0)


def test_waits_grow_obey_the_server_and_are_bounded() -> None:
    retry = Retry(attempts=4, first_wait=1.0, longest_wait=3.5, patience=30.0)
    waits = [retry.wait(tried, httpx.Response(503)) or 0 for tried in (1, 2, 3)]
    assert 0.75 <= waits[0] <= 1.25 and 1.5 <= waits[1] <= 2.5 and 3 <= waits[2] <= 3.5
    assert retry.wait(4, httpx.Response(503)) is None
    assert retry.wait(1, httpx.Response(429, headers={"Retry-After": "3"})) == 3
    assert retry.wait(1, httpx.Response(429, headers={"Retry-After": "30"})) == 30
    assert retry.wait(1, httpx.Response(429, headers={"Retry-After": "31"})) is None
    assert retry.wait(1, httpx.Response(422)) is None
    past = httpx.Response(503, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})
    assert 0.75 <= (retry.wait(1, past) or 0) <= 1.25
    distant = httpx.Response(503, headers={"Retry-After": "Wed, 21 Oct 2099 07:28:00 GMT"})
    assert retry.wait(1, distant) is None
    with pytest.raises(ValueError, match="attempts"):
        Retry(attempts=0)


@both
def test_an_error_names_its_request(solve: Solve) -> None:
    with pytest.raises(InvalidRequest, match=r"do that \(request r-1\)") as raised:
        solve(Answers(error(422, **{"X-Request-Id": "r-1"})))
    assert raised.value.request_id == "r-1"
    with pytest.raises(InvalidRequest, match=r"do that$") as raised:
        solve(Answers(error(422)))
    assert raised.value.request_id is None
