"""`stream` of both clients, against answers that a hand-made transport gives."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from stepback_client import (
    ApiError,
    AsyncClient,
    Client,
    InvalidRequest,
    ProgressEvent,
    ResultEvent,
    StartedEvent,
    StepbackError,
    StepEvent,
    TransportError,
    Unavailable,
)
from tests.client.test_clients import FAST, PROBLEM, RESULT, Answers, Handler, error

STARTED: dict[str, Any] = {
    "type": "started",
    "id": "s-1",
    "model": "m",
    "strategy": "self_backtracking",
    "select": "verified",
    "limits": {"tokens": 100, "seconds": 1.0, "tokens_per_branch": 50},
}
STEP: dict[str, Any] = {"type": "step", "branch": 1, "parent": 0, "index": 0, "text": "a\u2028b"}
DONE: dict[str, Any] = {"type": "result", "result": RESULT}

Follow = Callable[..., list[ProgressEvent]]


class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body in pieces, that may break, and that knows whether it was closed."""

    def __init__(self, *pieces: bytes, breaks: Exception | None = None) -> None:
        self._pieces = pieces
        self._breaks = breaks
        self.is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
        if self._breaks:
            raise self._breaks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece

    def close(self) -> None:
        self.is_closed = True

    async def aclose(self) -> None:
        self.is_closed = True


def event(data: dict[str, Any]) -> bytes:
    return f"event: {data['type']}\ndata: {json.dumps(data)}\n\n".encode()


def sse(body: Body) -> httpx.Response:
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=body)


def events_of(*data: dict[str, Any]) -> httpx.Response:
    return sse(Body(*map(event, data)))


def follow_blocking(handler: Handler, most: int = 99, **options: Any) -> list[ProgressEvent]:
    seen: list[ProgressEvent] = []
    with (
        Client(transport=httpx.MockTransport(handler), retry=FAST) as client,
        client.stream(PROBLEM, **options) as events,
    ):
        for each in events:
            seen.append(each)
            if len(seen) == most:
                break
    return seen


def follow_async(handler: Handler, most: int = 99, **options: Any) -> list[ProgressEvent]:
    async def run() -> list[ProgressEvent]:
        seen: list[ProgressEvent] = []
        async with (
            AsyncClient(transport=httpx.MockTransport(handler), retry=FAST) as client,
            client.stream(PROBLEM, **options) as events,
        ):
            async for each in events:
                seen.append(each)
                if len(seen) == most:
                    break
        return seen

    return asyncio.run(run())


both = pytest.mark.parametrize("follow", [follow_blocking, follow_async])


@both
def test_events_are_typed_and_the_options_are_those_of_solve(follow: Follow) -> None:
    handler = Answers(events_of(STARTED, STEP, DONE))
    started, step, done = follow(handler, breadth=4, tokens=100)
    assert isinstance(started, StartedEvent) and started.limits.tokens == 100
    assert isinstance(step, StepEvent) and step.text == "a\u2028b"
    assert isinstance(done, ResultEvent) and done.result.status == "solved"
    sent = json.loads(handler.requests[0].content)
    assert sent["stream"] is True and sent["breadth"] == 4 and sent["budget"] == {"tokens": 100}


@both
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_pieces_of_any_size_heartbeats_and_unknown_events_make_no_difference(
    follow: Follow, size: int
) -> None:
    news = {"type": "news_of_a_newer_server", "x": 1}
    whole = b": ping\n\n".join(map(event, [STARTED, news, STEP | {"new_field": 1}, DONE]))
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    seen = follow(Answers(sse(Body(*pieces))))
    assert [each.type for each in seen] == ["started", "step", "result"]


@both
@pytest.mark.parametrize(
    "cut",
    [
        lambda: Body(event(STARTED), event(STEP)),
        lambda: Body(event(STARTED), event(DONE)[:-40]),
        lambda: Body(event(STARTED), breaks=httpx.RemoteProtocolError("peer closed")),
        lambda: Body(event(STARTED), breaks=httpx.ReadTimeout("slow")),
    ],
    ids=["ended", "ended within an event", "broke", "timed out"],
)
def test_a_stream_without_a_result_is_an_error(follow: Follow, cut: Callable[[], Body]) -> None:
    with pytest.raises(TransportError, match="before its result"):
        follow(Answers(sse(cut())))


@both
@pytest.mark.parametrize(("status", "kind"), [(503, Unavailable), (500, ApiError)])
def test_an_error_event_is_raised_as_the_error_of_its_status(
    follow: Follow, status: int, kind: type[ApiError]
) -> None:
    detail = {"type": "unavailable", "message": "it has died", "param": None, "code": "c"}
    answer = events_of(STARTED, {"type": "error", "status": status, "error": detail})
    answer.headers["X-Request-Id"] = "r-1"
    handler = Answers(answer)
    with pytest.raises(kind, match="it has died") as raised:
        follow(handler)
    assert (raised.value.status, raised.value.code) == (status, "c")
    assert raised.value.request_id == "r-1"
    assert len(handler.requests) == 1, "after the first event nothing is tried again"


@both
def test_only_what_comes_before_the_first_event_is_tried_again(follow: Follow) -> None:
    refused = httpx.ConnectError("refused")
    handler = Answers(error(503), refused, error(429), events_of(STARTED, DONE))
    with pytest.raises(ApiError):
        follow(handler)
    handler = Answers(error(503), refused, events_of(STARTED, DONE))
    assert len(follow(handler)) == 2
    handler = Answers(error(422))
    with pytest.raises(InvalidRequest, match="do that") as raised:
        follow(handler)
    assert raised.value.param == "breadth"


@both
@pytest.mark.parametrize("breaks", [httpx.RemoteProtocolError("gone"), httpx.ReadTimeout("slow")])
def test_an_error_that_breaks_off_is_no_answer(follow: Follow, breaks: httpx.HTTPError) -> None:
    def broken() -> httpx.Response:
        return httpx.Response(422, stream=Body(b'{"error": ', breaks=breaks))

    with pytest.raises(TransportError):
        follow(Answers(*(broken() for _ in range(4))))


@both
def test_an_error_that_breaks_off_is_tried_again(follow: Follow) -> None:
    lost = httpx.Response(503, stream=Body(b"{", breaks=httpx.RemoteProtocolError("peer closed")))
    assert len(follow(Answers(lost, events_of(STARTED, DONE)))) == 2


@both
def test_leaving_early_closes_the_connection(follow: Follow) -> None:
    body = Body(*map(event, [STARTED, STEP, STEP, DONE]))
    assert len(follow(Answers(sse(body)), most=2)) == 2
    assert body.is_closed


@both
def test_what_is_no_stream_of_ours_is_one_of_our_errors(follow: Follow) -> None:
    with pytest.raises(StepbackError):
        follow(Answers(httpx.Response(200, text="<html>a login page</html>")))
    with pytest.raises(TransportError, match="not a Stepback event"):
        follow(Answers(sse(Body(b"event: step\ndata: {}\n\n"))))
