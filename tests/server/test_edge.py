"""Decisions before a search: authentication, limits and counts. The whole application, with no
engine behind it."""

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from stepback_server.api.body import nesting
from stepback_server.app import create_app
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import EngineUnavailable, OwnedEngine
from stepback_server.gateway.keys import new_key
from stepback_server.settings import Settings
from tests.asgi import NO_JOBS
from tests.conftest import CHECKPOINT, SERVED
from tests.server.search.scripted import END, ScriptedEngine

KEY, LINE = new_key("alice")
JSON = {"Content-Type": "application/json"}
SEARCH = {"task": "countdown", "problem": {"numbers": [3, 5], "target": 15}}
ADDRESS = "http://10.0.0.1:8000"


def unreachable() -> OwnedEngine:
    raise EngineUnavailable(f"{ADDRESS} cannot be reached")


def ask(*requests: tuple[str, str, dict[str, Any]], **settings: Any) -> list[httpx.Response]:
    """Requests, one after another, to a server whose engine cannot be reached."""

    async def run() -> list[httpx.Response]:
        given: dict[str, Any] = {"database_url": NO_JOBS} | settings
        app = create_app(Settings(**given), Checkpoint.open(CHECKPOINT), unreachable)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://c", timeout=300
            ) as client,
        ):
            await asyncio.sleep(0.1)  # until the engine has been tried
            return [await client.request(kind, path, **more) for kind, path, more in requests]

    return asyncio.run(run())


def code(answer: httpx.Response) -> str:
    return answer.json()["error"]["code"]


@pytest.mark.parametrize(
    "body", [{"content": "{", "headers": JSON}, {"content": "x"}, {"json": {"breadth": []}}]
)
def test_who_has_no_key_is_told_so_whatever_else_is_wrong(body: dict[str, Any]) -> None:
    [answer] = ask(("POST", "/solve", body), keys=LINE)
    assert (answer.status_code, code(answer)) == (401, "missing_key")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_who_has_a_key_is_told_what_is_wrong_with_the_body() -> None:
    headers = JSON | {"Authorization": f"Bearer {KEY}"}
    [answer] = ask(("POST", "/solve", {"content": "{", "headers": headers}), keys=LINE)
    assert (answer.status_code, code(answer)) == (400, "invalid_json")


def test_a_body_may_be_as_deep_as_the_settings_say_and_text_counts_for_nothing() -> None:
    def body(levels: int) -> dict[str, Any]:
        brackets = "[" * 50 + '\\"{'
        problem = "[" * (levels - 1) + "]" * (levels - 1)
        text = f'{{"task": "{brackets}", "breadth": 0, "problem": {problem}, "x": "{brackets}"}}'
        return {"content": text, "headers": JSON}

    answers = ask(*(("POST", "/solve", body(levels)) for levels in (8, 9, 100_000)), max_nesting=8)
    assert [code(answer) for answer in answers][1:] == ["nested_too_deeply"] * 2
    assert code(answers[0]) == "wrong_type", "it is read, and what is wrong with it is told"
    assert "8 levels" in answers[1].json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "levels"),
    [
        (b"[[1], {}]", 2),
        (b'{"a": [{"b": "]]]"}]}', 3),
        (b'["\\\\", [["\\"[[["]]]', 3),
        (b'[["[[[[', 2),
        (b"]][[", 0),
        (b"", 0),
    ],
)
def test_levels_are_those_of_objects_and_lists(body: bytes, levels: int) -> None:
    assert nesting(body, -1) == levels


def test_only_a_search_that_is_too_large_is_counted_as_refused() -> None:
    large = {"content": b"x" * 2000}
    *answers, page = ask(
        ("POST", "/elsewhere", large),
        ("POST", "/solve", large),
        ("GET", "/metrics", {}),
        max_body_bytes=1024,
    )
    assert [answer.status_code for answer in answers] == [413, 413]
    refused = {
        sample.labels["code"]: sample.value
        for family in text_string_to_metric_families(page.text)
        for sample in family.samples
        if sample.name == "stepback_refused_total"
    }
    assert refused["body_too_large"] == 1


def test_callers_do_not_learn_where_the_engines_are_and_the_log_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    refused, ready, version = ask(
        ("POST", "/solve", {"json": SEARCH}), ("GET", "/ready", {}), ("GET", "/version", {})
    )
    assert refused.status_code == ready.status_code == 503
    assert code(refused) == "engine_unavailable"
    assert ready.json()["reason"] == "the engine is still starting"
    assert "10.0.0.1" not in refused.text + ready.text
    assert version.json()["vllm"] == "unknown"
    fields = [getattr(record, "fields", {}) for record in caplog.records]
    reasons = {each["path"]: each.get("reason", "") for each in fields if "path" in each}
    assert ADDRESS in reasons["/solve"] and ADDRESS in reasons["/ready"]


def test_the_schema_describes_every_code_of_a_search() -> None:
    [schema] = ask(("GET", "/openapi.json", {}))
    answers = json.loads(schema.text)["paths"]["/solve"]["post"]["responses"]
    assert "`missing_key`" in answers["401"]["description"]
    assert "`queue_full`" in answers["429"]["description"]
    assert "405" not in answers


def test_without_a_root_no_weights_are_loaded() -> None:
    [refused] = ask(("POST", f"/v1/models/{SERVED}/reload", {"json": {"path": "/"}}))
    assert (refused.status_code, code(refused)) == (501, "reload_not_offered")


def test_the_schema_is_one_of_the_openapi_that_it_names() -> None:
    [schema] = ask(("GET", "/openapi.json", {}))
    assert schema.json()["openapi"] == "3.1.0"
    OPENAPI_31_VALIDATOR.validate(schema.json())


def test_every_reference_of_the_schema_leads_somewhere() -> None:
    """A reference that leads nowhere breaks generators of clients, and /redoc."""
    [schema] = ask(("GET", "/openapi.json", {}))
    whole = schema.json()

    def check(part: Any) -> None:
        if isinstance(part, list):
            for each in part:
                check(each)
        if isinstance(part, dict):
            if isinstance(reference := part.get("$ref"), str):
                at = whole
                for name in reference.removeprefix("#/").split("/"):
                    at = at[name]
            check(list(part.values()))

    check(whole)


def test_the_schema_describes_every_header_of_an_answer() -> None:
    schema, refused, unknown = ask(
        ("GET", "/openapi.json", {}),
        ("POST", "/solve", {"json": SEARCH, "headers": {"Authorization": f"Bearer {KEY}"}}),
        ("GET", "/v1/models", {}),
        keys=LINE,
    )
    paths = schema.json()["paths"]

    def described(path: str, method: str, status: int) -> set[str]:
        return set(paths[path][method]["responses"][str(status)]["headers"])

    usual = {"content-length", "content-type"}
    for answer, path, method in ((refused, "/solve", "post"), (unknown, "/v1/models", "get")):
        names = described(path, method, answer.status_code)
        assert {name.lower() for name in names} == set(answer.headers) - usual
    assert refused.status_code == 503 and unknown.status_code == 401
    assert described("/solve", "post", 429) == {"X-Request-Id", "Retry-After"}
    assert described("/solve", "post", 200) == {"X-Request-Id", "Idempotent-Replayed"}
    # It has no Retry-After, and another body.
    assert described("/ready", "get", 503) == {"X-Request-Id"}


def test_a_full_queue_is_not_ready_for_a_search_and_is_for_traffic() -> None:
    """A probe that takes the server away leaves its callers without the 429."""

    async def run() -> list[httpx.Response]:
        engine = ScriptedEngine(lambda request, index: (END,), delay=0.2)
        settings = Settings(max_searches=1, max_queued=0, database_url=NO_JOBS)
        app = create_app(settings, Checkpoint.open(CHECKPOINT), lambda: engine)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://c", timeout=300
            ) as client,
        ):
            async with asyncio.timeout(120):
                await until(client, lambda state: state["ready"])
            body = SEARCH | {"strategy": "best_of_n", "breadth": 256}
            search = asyncio.create_task(client.post("/solve", json=body))
            async with asyncio.timeout(120):
                await until(client, lambda state: state["searching"])
            paths = ["/ready", "/ready?for=traffic", "/ready?for=fun"]
            answers = [await client.get(path) for path in paths]
            answers.append(await client.post("/solve", json=SEARCH))
            search.cancel()
            await asyncio.gather(search, return_exceptions=True)
            return answers

    for_search, for_traffic, for_fun, refused = asyncio.run(run())
    assert for_search.status_code == 503 and for_search.json()["reason"] == "the queue is full"
    assert for_traffic.status_code == 200 and for_traffic.json()["ready"]
    assert for_search.json()["full"] and for_traffic.json()["full"]
    assert for_fun.status_code == 422 and for_fun.json()["error"]["param"] == "for"
    assert refused.status_code == 429


async def until(client: httpx.AsyncClient, condition: Callable[[dict[str, Any]], bool]) -> None:
    """Ask until the server's state is so."""
    while not condition((await client.get("/ready")).json()):  # noqa: ASYNC110 - of a server
        await asyncio.sleep(0.01)


def test_no_probe_calls_a_server_ready_that_has_no_engine() -> None:
    [answer] = ask(("GET", "/ready?for=traffic", {}))
    assert answer.status_code == 503


USER = {"role": "user", "content": "countdown:4,16,25,82=95"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "status", "refused"),
    [
        ("/v1/completions", {"prompt": "\N{MULTIPLICATION SIGN}"}, 400, "unknown_character"),
        ("/v1/completions", {"prompt": USER["content"]}, 503, "engine_unavailable"),
        ("/v1/completions", {"prompt": [USER["content"]] * 3}, 503, "engine_unavailable"),
        ("/v1/chat/completions", {"messages": [USER]}, 503, "engine_unavailable"),
    ],
)
def test_a_stream_that_cannot_begin_is_refused_by_its_status(
    path: str, body: dict[str, Any], status: int, refused: str, stream: bool
) -> None:
    [answer] = ask(("POST", path, {"json": body | {"stream": stream}}))
    assert answer.status_code == status and code(answer) == refused


@pytest.mark.parametrize(
    ("fields", "refused", "param"),
    [
        ({"reasoning_effort": "xhigh"}, "unknown_value", "reasoning_effort"),
        (
            {"messages": [USER, {"role": "tool", "content": "5", "tool_call_id": "c1"}]},
            "unsupported_parameter",
            "messages.1.role",
        ),
        (
            {"messages": [USER, {"role": "assistant", "tool_calls": [{"id": "c1"}]}]},
            "unsupported_parameter",
            "messages.1.role",
        ),
        ({"messages": [{"content": "x"}]}, "missing_field", "messages.0.role"),
        ({"messages": [{"role": "user", "content": []}]}, "invalid_value", "messages"),
        ({"n": "2"}, "wrong_type", "n"),
        ({"stop": [""]}, "invalid_value", "stop"),
    ],
)
def test_an_odd_chat_is_refused_by_the_field_at_fault(
    fields: dict[str, Any], refused: str, param: str
) -> None:
    [answer] = ask(("POST", "/v1/chat/completions", {"json": {"messages": [USER]} | fields}))
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error["type"], error["code"], error["param"]) == (
        "invalid_request_error",
        refused,
        param,
    )


def test_null_is_as_good_as_left_out() -> None:
    names = "n max_tokens max_completion_tokens temperature top_p seed stop stream stream_options"
    names += " logprobs top_logprobs tools tool_choice response_format logit_bias user stepback"
    names += " functions function_call modalities audio prediction verbosity reasoning_effort store"
    body = {"messages": [USER], **dict.fromkeys(names.split())}
    [answer] = ask(("POST", "/v1/chat/completions", {"json": body}))
    assert code(answer) == "engine_unavailable"  # so nothing was refused
