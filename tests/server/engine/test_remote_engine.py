"""One server over real HTTP: a small one of our own, for answers that vLLM gives on bad days."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from stepback_core.schemas import SolveRequest
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import (
    EngineError,
    EngineUnavailable,
    Finish,
    PromptRefused,
    ReloadFailed,
    ReloadNotOffered,
    Sample,
    SampleRequest,
)
from stepback_server.engine.handshake import ExpectedServer
from stepback_server.engine.remote import RemoteEngine
from stepback_server.engine_provider import provide_engines
from stepback_server.errors import ApiError
from stepback_server.reload import Served
from stepback_server.request_context import ONWARD
from stepback_server.service import Service
from stepback_server.settings import Settings
from tests.conftest import CHECKPOINT, free_port

REQUEST = SampleRequest(
    ids=(4, 5), n=2, max_tokens=9, temperature=0.7, seeds=(1, 2), stop_ids=(2,), tree="a tree"
)
EXPECTED = ExpectedServer(model="m", context_tokens=16, api_key="secret", connections=4)


def chunk(index: int, *ids: int, finish: str | None = None) -> str:
    logprobs = {"token_logprobs": [-1.0] * len(ids), "top_logprobs": [{}] * len(ids)}
    choice = {"index": index, "token_ids": ids, "logprobs": logprobs, "finish_reason": finish}
    return f"data: {json.dumps({'choices': [choice]})}\n\n"


class FakeVllm:
    """Streams what it is told; refuses to abort by name, as vLLM does without its flag."""

    def __init__(self) -> None:
        self.answer: Callable[[], Response] = lambda: Response(status_code=500)
        self.told_name = "m"
        self.told_context: int | None = 16
        self.told_version: Response = JSONResponse({"version": "0.32.0"})
        self.told_metrics = Response("vllm:generation_tokens_total{a} 7.0\n")
        self.told_health = Response()
        self.hung_up = asyncio.Event()
        self.keys: set[str | None] = set()
        self.trace: dict[str, str] = {}
        """The trace context of the last completion."""
        self.cookies: set[str | None] = set()
        self.weights: str | None = None
        """Weights that were loaded, where the development mode is on."""
        self.busy = 0
        """Number of times that the prefix cache will still be in use."""

    def set_cookie(self) -> Response:
        response = Response(status_code=429)
        response.set_cookie("llm-d-session", "a server")
        return response

    def stream(self, *chunks: str, forever: bool = False) -> None:
        async def body() -> AsyncIterator[str]:
            try:
                for each in chunks:
                    yield each
                if forever:
                    await asyncio.Event().wait()
            finally:
                self.hung_up.set()

        self.answer = lambda: StreamingResponse(body(), media_type="text/event-stream")

    async def complete(self, request: Request) -> Response:
        self.keys.add(request.headers.get("authorization"))
        self.trace = {name: text for name, text in request.headers.items() if "trace" in name}
        self.cookies.add(request.headers.get("cookie"))
        return self.answer()

    async def models(self, request: Request) -> Response:
        if request.headers.get("authorization") != "Bearer secret":
            return JSONResponse({"error": "Unauthorized"}, 401)
        model = {"id": self.told_name, "max_model_len": self.told_context}
        return JSONResponse({"data": [model]})

    async def version(self, request: Request) -> Response:
        return self.told_version

    async def metrics(self, request: Request) -> Response:
        return self.told_metrics

    async def health(self, request: Request) -> Response:
        return self.told_health

    async def abort(self, request: Request) -> Response:
        return JSONResponse({}, 403)

    async def call(self, request: Request) -> Response:
        """vLLM's development mode."""
        if self.weights is None:
            return JSONResponse({"detail": "Not Found"}, 404)
        if request.method == "GET":
            return JSONResponse({"detail": "Method Not Allowed"}, 405)
        body = await request.json()
        if body["method"] == "reload_weights":
            if body["kwargs"]["weights_path"].endswith("broken"):
                return JSONResponse({"error": {"message": "no such tensor"}}, 500)
            self.weights = body["kwargs"]["weights_path"]
        return JSONResponse({"results": [{"all": self.weights}]})

    async def forget(self, request: Request) -> Response:
        self.busy -= 1
        return JSONResponse({"success": self.busy < 0})

    @property
    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/completions", self.complete, methods=["POST"]),
                Route("/inference/v1/abort_requests", self.abort, methods=["POST"]),
                Route("/v1/models", self.models),
                Route("/version", self.version),
                Route("/metrics", self.metrics),
                Route("/health", self.health),
                Route("/collective_rpc", self.call, methods=["GET", "POST"]),
                Route("/reset_prefix_cache", self.forget, methods=["POST"]),
            ]
        )


def with_server(scenario: Callable[[FakeVllm, str], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        fake, port = FakeVllm(), free_port()
        server = uvicorn.Server(uvicorn.Config(fake.app, port=port, log_level="error"))
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        async with asyncio.timeout(120):
            await scenario(fake, f"http://127.0.0.1:{port}")
        server.should_exit = True
        await serving

    asyncio.run(run())


async def sample(url: str, stop: asyncio.Event | None = None) -> list[Sample]:
    replica, samples = await asyncio.to_thread(RemoteEngine.connect, url, EXPECTED), list[Sample]()
    try:
        await replica.sample(REQUEST, stop or asyncio.Event(), samples.append)
    finally:
        await replica.close(kill=False)
    return samples


def test_where_a_request_cannot_be_aborted_by_name_its_connection_is_dropped() -> None:
    """Then what was generated is unknown, and counted as the most that it can have been."""

    async def scenario(fake: FakeVllm, url: str) -> None:
        fake.stream(chunk(0, 8), chunk(1, 7, 2, finish="stop"), forever=True)
        stop, samples = asyncio.Event(), dict[int, Sample]()

        def stop_at_the_first(each: Sample) -> None:
            samples[each.index] = each
            stop.set()

        replica = RemoteEngine(url, EXPECTED)
        await replica.sample(REQUEST, stop, stop_at_the_first)
        await replica.close(kill=False)
        assert samples[1].finish is Finish.STOP and samples[1].generated_tokens == 2
        assert samples[0].finish is Finish.ABORTED and samples[0].ids == (8,)
        assert samples[0].generated_tokens == REQUEST.max_tokens
        await fake.hung_up.wait()
        assert fake.keys == {"Bearer secret"}

    with_server(scenario)


def test_a_round_carries_its_trace_and_one_that_is_not_traced_carries_none() -> None:
    context = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "vendor=1"}

    async def scenario(fake: FakeVllm, url: str) -> None:
        for expected in ({}, context):
            fake.stream(chunk(0, 2, finish="stop"), chunk(1, 2, finish="stop"), "data: [DONE]\n\n")
            token = ONWARD.set(expected)
            assert len(await sample(url)) == 2
            ONWARD.reset(token)
            assert fake.trace == expected

    with_server(scenario)


def test_nothing_is_asked_once_a_search_is_over() -> None:
    async def scenario(fake: FakeVllm, url: str) -> None:
        stop = asyncio.Event()
        stop.set()
        samples = await sample(url, stop)
        assert [(each.finish, each.generated_tokens) for each in samples] == [
            (Finish.ABORTED, 0)
        ] * 2
        assert not fake.keys

    with_server(scenario)


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([chunk(0, 2, finish="stop")], "ended an answer early"),
        ([chunk(0, finish="abort")], "aborted a request"),
        (['data: {"error": {"message": "EngineCore is dead"}}\n\n'], "EngineCore is dead"),
    ],
)
def test_an_answer_that_breaks_off_loses_the_server(chunks: list[str], message: str) -> None:
    async def scenario(fake: FakeVllm, url: str) -> None:
        fake.stream(*chunks)
        with pytest.raises(EngineUnavailable, match=message):
            await sample(url)

    with_server(scenario)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Response(b"data: " + b"x" * (1 << 26)), id="a line without end"),
        pytest.param(Response(b"data: \xff\n"), id="no text"),
        pytest.param(Response(b"no gzip", headers={"content-encoding": "gzip"}), id="no gzip"),
    ],
)
def test_an_answer_that_cannot_be_read_loses_the_server(answer: Response) -> None:
    async def scenario(fake: FakeVllm, url: str) -> None:
        fake.answer = lambda: answer
        with pytest.raises(EngineUnavailable) as lost:
            await sample(url)
        assert lost.value.begun

    with_server(scenario)


def test_a_server_whose_word_on_itself_cannot_be_read_is_lost() -> None:
    """And not its watcher, with whom the controller and its other servers would end."""
    undecodable = Response(b"no gzip", headers={"content-encoding": "gzip"})

    async def scenario(fake: FakeVllm, url: str) -> None:
        replica = RemoteEngine(url, EXPECTED)
        assert await replica.progress() == 7
        await replica.check()
        for value in ("many", "NaN", "+Inf"):
            fake.told_metrics = Response(f"vllm:generation_tokens_total{{a}} {value}\n")
            with pytest.raises(EngineUnavailable, match="/metrics cannot be read"):
                await replica.progress()
        fake.told_metrics = fake.told_health = fake.told_version = undecodable
        for ask in (replica.progress, replica.check, lambda: sample(url)):
            with pytest.raises(EngineUnavailable):
                await ask()
        await replica.close(kill=False)

    with_server(scenario)


def test_a_request_that_was_not_taken_has_cost_nothing() -> None:
    """Behind a proxy a 5xx may have; in vLLM's own words it was answered before the first token."""

    async def scenario(fake: FakeVllm, url: str) -> None:
        said = {"error": {"message": "EngineCore encountered an issue"}}
        replica = RemoteEngine(url, EXPECTED)
        for answer, never_begun in (
            (Response("busy", 429), True),
            (JSONResponse(said, 503), True),
            (JSONResponse(said, 500), True),
            (Response("bad gateway", 502), False),
            (Response("upstream reset", 503), False),
        ):
            fake.answer = lambda answer=answer: answer
            with pytest.raises(EngineUnavailable) as lost:
                await replica.sample(REQUEST, asyncio.Event(), lambda sample: None)
            assert lost.value.begun is not never_begun
        await replica.close(kill=False)
        nowhere = RemoteEngine("http://127.0.0.1:9", EXPECTED)
        with pytest.raises(EngineUnavailable) as lost:
            await nowhere.sample(REQUEST, asyncio.Event(), lambda sample: None)
        assert not lost.value.begun
        await nowhere.close(kill=False)

    with_server(scenario)


def test_no_cookie_of_a_router_holds_all_searches_at_one_of_its_servers() -> None:
    async def scenario(fake: FakeVllm, url: str) -> None:
        fake.answer = fake.set_cookie
        replica = RemoteEngine(url, EXPECTED)
        for _ in range(2):
            with pytest.raises(EngineUnavailable) as lost:
                await replica.sample(REQUEST, asyncio.Event(), lambda sample: None)
            assert not lost.value.begun
        await replica.close(kill=False)
        assert fake.cookies == {None}

    with_server(scenario)


def test_a_refusal_is_the_callers_fault_or_the_servers() -> None:
    async def scenario(fake: FakeVllm, url: str) -> None:
        body = {"error": {"message": "the context is 16 tokens"}}
        fake.answer = lambda: JSONResponse(body, 400)
        with pytest.raises(PromptRefused, match=r"^the context is 16 tokens$"):
            await sample(url)
        for status in (404, 429, 500, 503):
            fake.answer = lambda status=status: Response("no", status)
            with pytest.raises(EngineUnavailable, match=f"answers {status}: no"):
                await sample(url)

    with_server(scenario)


def test_a_server_tells_its_version_unless_something_before_it_does_not() -> None:
    async def scenario(fake: FakeVllm, url: str) -> None:
        connected = await asyncio.to_thread(RemoteEngine.connect, url, EXPECTED)
        assert connected.version == "0.32.0"
        fake.told_version = Response("no such path", 404)
        connected = await asyncio.to_thread(RemoteEngine.connect, url, EXPECTED)
        assert connected.version == "unknown"

    with_server(scenario)


def test_a_router_that_does_not_tell_the_context_is_taken_at_its_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(fake: FakeVllm, url: str) -> None:
        fake.told_context = None
        await asyncio.to_thread(RemoteEngine.connect, url, EXPECTED)
        assert "does not tell its context: it must be 16" in caplog.text
        fake.told_context = 15
        with pytest.raises(EngineError, match="a context of 15 tokens"):
            await asyncio.to_thread(RemoteEngine.connect, url, EXPECTED)

    with_server(scenario)


def test_a_server_with_a_shorter_context_shortens_that_of_the_controller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    checkpoint = Checkpoint.open(CHECKPOINT)
    settings = {"STEPBACK_ENGINE_API_KEY": "secret"}

    async def scenario(fake: FakeVllm, url: str) -> None:
        fake.told_name, fake.told_context = checkpoint.manifest.name, 100
        for chosen in ("", "256"):
            read = Settings.read(
                settings | {"STEPBACK_ENGINE_URLS": url, "STEPBACK_CONTEXT_TOKENS": chosen}
            )
            served = Served(checkpoint)
            pool = provide_engines(read, served, None)
            service = Service(read, served, pool)
            running = asyncio.create_task(pool.run())
            if chosen:
                # An operator who has named a context is told what does not hold it.
                with pytest.raises(EngineError, match="STEPBACK_CONTEXT_TOKENS=100"):
                    await running
                continue
            while service.model.max_model_len != 100:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
            assert "a context of 100 tokens, so 100 are served and not 256" in caplog.text
            await service.check(SolveRequest(prompt="1" * 90))
            with pytest.raises(ApiError, match="of a context of 100"):
                await service.check(SolveRequest(prompt="1" * 110))
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    with_server(scenario)


def test_a_wrong_key_is_told_by_the_name_of_its_setting() -> None:
    keyless = ExpectedServer(model="m", context_tokens=16, api_key=None, connections=4)

    async def scenario(fake: FakeVllm, url: str) -> None:
        with pytest.raises(EngineError, match="STEPBACK_ENGINE_API_KEY"):
            await asyncio.to_thread(RemoteEngine.connect, url, keyless)

    with_server(scenario)


def test_new_weights_go_to_a_server_in_its_development_mode() -> None:
    async def scenario(fake: FakeVllm, url: str) -> None:
        replica = RemoteEngine(url, EXPECTED)
        with pytest.raises(ReloadNotOffered):
            await replica.reload(Path("/new"))
        fake.weights, fake.busy = "/old", 2
        assert await replica.reload(Path("/new"))
        assert (fake.weights, fake.busy) == ("/new", -1)
        assert not await replica.reload(Path("/new"))
        with pytest.raises(ReloadFailed, match="no such tensor"):
            await replica.reload(Path("/broken"))
        fake.busy = 10_000
        with pytest.raises(ReloadFailed, match="cached"):
            await replica.reload(Path("/new"))
        await replica.close(kill=False)
        with pytest.raises(EngineUnavailable):
            await RemoteEngine("http://127.0.0.1:9", EXPECTED).reload(Path("/new"))

    with_server(scenario)
