"""A search told while it runs: pace, silence, failure and slow readers, over real HTTP."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from stepback_core.events import ProgressEvent, SearchLimits, StartedEvent
from stepback_core.schemas import Answer, Outcome, Select, SolveResult, Strategy
from stepback_core.trace import Grammar, TraceCodec
from stepback_server.api.sse import EventStream
from stepback_server.engine.base import EngineUnavailable, Finish, Sample
from stepback_server.observability.access_log import AccessLog
from stepback_server.search.tree import Branch, State
from stepback_server.solve.events import EventWriter
from stepback_server.solve.stream import Feed, LiveSearch
from tests.asgi import listening
from tests.client.test_clients import RESULT
from tests.server.search.scripted import END, GRAMMAR, MARKER, NEWLINE

Solve = Callable[[Feed], Coroutine[Any, Any, SolveResult]]


class Letters:
    """A tokenizer with one letter a token."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [ord(char) for char in text]

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = True) -> str:
        return "".join("\n" if token == NEWLINE else chr(token) for token in token_ids)

    def convert_tokens_to_ids(self, tokens: str) -> int | None:
        return None

    def __len__(self) -> int:
        return 128


CODEC = TraceCodec(Grammar(), Letters(), GRAMMAR)
STARTED = StartedEvent(
    id="s-1",
    model="m",
    strategy=Strategy.GREEDY,
    select=Select.PERPLEXITY,
    limits=SearchLimits(tokens=1, seconds=1, tokens_per_branch=1),
)


def ids(text: str) -> tuple[int, ...]:
    special = {"\n": NEWLINE, "<": MARKER, ">": END}
    return tuple(special.get(char, ord(char)) for char in text)


def branch(number: int, text: str, state: State | None = None) -> Branch:
    """`<` stands for the marker and `>` for the end."""
    outcome = {"<": Outcome.BACKTRACK, ">": Outcome.ANSWER}.get(text[-1:], Outcome.UNFINISHED)
    sample = Sample(
        index=0,
        ids=ids(text),
        logprobs=(-0.5,) * len(text),
        finish=Finish.ABORTED if outcome is Outcome.UNFINISHED else Finish.STOP,
        cached_tokens=2,
    )
    return Branch.of(GRAMMAR, number, state or State(), sample)


def answer_of(branch: Branch) -> Answer:
    steps = CODEC.decode_steps(branch.ids)
    return Answer(text="\n".join(steps), steps=steps, score=-0.5, verified=None)


def begin(feed: Feed) -> None:
    feed.begin(STARTED, EventWriter(CODEC, answer_of))


def told(*branches: Branch) -> list[dict[str, Any]]:
    event_writer = EventWriter(CODEC, answer_of)
    return [
        event.model_dump(exclude={"p_marker"})
        for each in branches
        for event in event_writer.tell(each)
    ]


def test_a_branch_is_told_by_its_complete_steps_and_its_end() -> None:
    first = branch(0, "ab\nc\nd<")
    state = first.roll_back(GRAMMAR)
    events = told(first, branch(4, "e\nf>", state), branch(5, "gh\nij", state))
    step = {"type": "step", "branch": 1, "parent": 0, "score": -0.5}
    assert events[:3] == [
        step | {"index": 0, "text": "ab"},
        step | {"index": 1, "text": "c"},
        {"type": "backtrack", "branch": 1, "parent": 0, "kept_steps": 0}
        | {"outcome": "backtrack", "struck": [{"index": 2, "text": "d"}]},
    ]
    step |= {"branch": 5, "parent": 1}
    assert events[3:5] == [step | {"index": 2, "text": "e"}, step | {"index": 3, "text": "f"}]
    assert events[5]["type"] == "candidate" and events[5]["kept_steps"] == 2
    assert events[5]["answer"]["steps"] == ["ab", "c", "e", "f"]
    # The last one was cut: its complete step is told, and no end.
    assert events[6:] == [step | {"branch": 6, "index": 2, "text": "gh"}]


def test_a_marker_alone_takes_back_a_step_that_was_kept() -> None:
    first = branch(0, "a\nb\nc\n<")
    state = first.roll_back(GRAMMAR)
    *_, event = told(first, branch(1, "<", state))
    assert (event["kept_steps"], event["struck"]) == (2, [{"index": 1, "text": "b"}])
    [nothing_to_take_back] = told(branch(2, "<"))
    assert nothing_to_take_back["struck"] == []


def test_what_an_abort_left_unknown_is_part_of_the_totals() -> None:
    cut = branch(0, "ab")
    event_writer = EventWriter(CODEC, answer_of, lambda: 3)
    list(event_writer.tell(replace(cut, sample=replace(cut.sample, unseen_tokens=5))))
    told = event_writer.usage(1.0)
    assert (told.generated_tokens, told.branches, told.in_flight) == (2 + 5, 1, 3)


def test_equal_answers_are_counted_as_votes() -> None:
    votes = [
        e["answer"]["votes"] for e in told(*(branch(n, "a\n>") for n in range(3))) if "answer" in e
    ]
    assert votes == [1, 2, 3]


async def collect(solve: Solve, **pace: float) -> list[ProgressEvent | None]:
    live = LiveSearch(solve, **pace)
    await live.begin()
    return [event async for event in live.events()]


def types(events: list[ProgressEvent | None]) -> list[str]:
    return [event.type if event else "silence" for event in events]


def test_totals_come_at_their_pace_however_many_branches_end() -> None:
    async def solve(feed: Feed) -> SolveResult:
        begin(feed)
        for number in range(500):
            feed.record(branch(number, "<"))
            await asyncio.sleep(0.001)
        return SolveResult.model_validate(RESULT)

    events = asyncio.run(collect(solve, usage_seconds=0.2))
    totals = [event for event in events if event and event.type == "usage"]
    assert types(events).count("backtrack") == 500
    assert 1 <= len(totals) <= 500 * 0.1 / 0.2
    assert totals[-1].branches == totals[-1].backtracks <= 500
    assert totals[-1].cached_tokens == 2 * totals[-1].branches


def test_totals_that_are_due_in_a_silence_are_told_in_it_and_then_there_are_heartbeats() -> None:
    async def solve(feed: Feed) -> SolveResult:
        begin(feed)
        feed.record(branch(0, "a\n>"))
        await asyncio.sleep(0.5)
        return SolveResult.model_validate(RESULT)

    events = asyncio.run(collect(solve, usage_seconds=0.05, heartbeat_seconds=0.12))
    kinds = types(events)
    assert kinds[:4] == ["started", "step", "candidate", "usage"] and kinds[-1] == "result"
    assert set(kinds[4:-1]) == {"silence"} and 1 <= len(kinds[4:-1]) <= 4


def test_a_reader_who_sleeps_loses_nothing_and_holds_nobody_up() -> None:
    async def solve(feed: Feed) -> SolveResult:
        begin(feed)
        for number in range(100):
            feed.record(branch(number, "a\n>"))
            await asyncio.sleep(0)
        return SolveResult.model_validate(RESULT)

    async def scenario() -> list[ProgressEvent | None]:
        live = LiveSearch(solve)
        await live.begin()
        events = live.events()
        first = await anext(events)
        await asyncio.wait_for(live.ended(), 1)
        return [first, *[event async for event in events]]

    kinds = types(asyncio.run(scenario()))
    assert kinds.count("candidate") == 100 and kinds[-1] == "result"


# --- as HTTP ---


@contextmanager
def serving(solve: Solve, **options: Any) -> Iterator[tuple[str, list[str]]]:
    """A server whose every path streams that search; gives its URL and the errors it counted."""
    linger = {name: options.pop(name) for name in ("linger_seconds",) if name in options}
    counted: list[str] = []

    async def stream(request: Request) -> EventStream:
        live = LiveSearch(solve, **options)
        await live.begin()
        return EventStream(live, **linger)

    app = Starlette(routes=[Route("/", stream)])
    logged = AccessLog(app, counted.append, {"/"})
    with listening(uvicorn.Config(logged, log_level="critical", lifespan="off")) as port:
        yield f"http://127.0.0.1:{port}/", counted


def test_silence_is_a_comment_and_text_survives_its_way() -> None:
    async def solve(feed: Feed) -> SolveResult:
        begin(feed)
        await asyncio.sleep(0.2)
        return SolveResult.model_validate(RESULT | {"model": "a\u2028b\x85é"})

    with serving(solve, heartbeat_seconds=0.05) as (url, _):
        answer = httpx.get(url, timeout=300)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Accel-Buffering"] == "no"
    *_, heartbeat, result, end = answer.text.split("\n\n")
    assert heartbeat.startswith(":") and end == ""
    name, data = result.split("\n")
    assert name == "event: result"
    assert json.loads(data.removeprefix("data: "))["result"]["model"] == "a\u2028b\x85é"


def test_a_failure_after_the_start_is_an_error_event_is_counted_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "stepback_server.access")

    async def solve(feed: Feed) -> SolveResult:
        begin(feed)
        feed.record(branch(0, "a\n>"))
        raise EngineUnavailable("http://10.0.0.1 has died")

    with serving(solve) as (url, counted):
        answer = httpx.get(url, timeout=300)
    kinds = [part.split("\n")[0] for part in answer.text.split("\n\n")]
    assert kinds == ["event: started", "event: step", "event: candidate", "event: error", ""]
    data = json.loads(answer.text.split("data: ")[-1])
    assert data["status"] == 503 and "the engine was lost" in data["error"]["message"]
    assert "10.0.0.1" not in answer.text
    assert counted == ["engine_unavailable"]
    [line] = [record for record in caplog.records if record.name == "stepback_server.access"]
    fields: dict[str, Any] = vars(line)["fields"]
    assert (fields["status"], fields["code"]) == (200, "engine_unavailable")
    assert "10.0.0.1" in fields["reason"]


def test_a_caller_who_stops_reading_is_cut_off_once_the_search_has_ended() -> None:
    async def solve(feed: Feed) -> SolveResult:
        begin(feed)
        for number in range(20_000):  # far more than the buffers between two sockets hold
            feed.record(branch(number, "a\n" * 40 + ">"))
        return SolveResult.model_validate(RESULT)

    with (
        serving(solve, linger_seconds=0.3) as (url, _),
        httpx.stream("GET", url, timeout=300) as answer,
    ):
        lines = answer.iter_lines()
        assert next(lines) == "event: started"
        time.sleep(1.5)
        try:
            rest = list(lines)
        except httpx.RemoteProtocolError:
            rest = []
        assert "event: result" not in rest
