"""What is decided before a search: who asks, and what is counted. The whole application, with no
engine behind it."""

import asyncio
import json
import logging
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from stepback_server.api.body import nesting
from stepback_server.app import create_app
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import EngineUnavailable, OwnedEngine
from stepback_server.keys import new_key
from stepback_server.settings import Settings
from tests.conftest import CHECKPOINT

KEY, LINE = new_key("alice")
JSON = {"Content-Type": "application/json"}
SEARCH = {"task": "countdown", "problem": {"numbers": [3, 5], "target": 15}}
ADDRESS = "http://10.0.0.1:8000"


def unreachable() -> OwnedEngine:
    raise EngineUnavailable(f"{ADDRESS} cannot be reached")


def ask(*requests: tuple[str, str, dict[str, Any]], **settings: Any) -> list[httpx.Response]:
    """Requests, one after another, to a server whose engine cannot be reached."""

    async def run() -> list[httpx.Response]:
        app = create_app(Settings(**settings), Checkpoint.open(CHECKPOINT), unreachable)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://c") as client,
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
    [refused] = ask(("POST", "/v1/models/countdown-5m/reload", {"json": {"path": "/"}}))
    assert (refused.status_code, code(refused)) == (501, "reload_not_offered")
