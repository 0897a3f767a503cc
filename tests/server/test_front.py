"""Clients and proxies before a server: browsers of other origins, monitors, proxies with a prefix,
pods."""

import asyncio
import json
import re
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from starlette.responses import StreamingResponse

from stepback_core.errors import InvalidInput
from stepback_server.api.middleware import HeadAsGet
from stepback_server.app import create_app
from stepback_server.checkpoint import Checkpoint
from stepback_server.settings import Settings
from tests.asgi import NO_JOBS
from tests.conftest import CHECKPOINT
from tests.server.test_edge import SEARCH, ask, unreachable

PAGE = "http://localhost:5173"
PREFLIGHT = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type,authorization,idempotency-key",
}


def test_a_model_of_others_is_refused_with_the_command_that_takes_it(tmp_path: Path) -> None:
    folder = shutil.copytree(CHECKPOINT, tmp_path / "theirs")
    (folder / "stepback.json").unlink()
    with pytest.raises(InvalidInput, match=f"stepback import {folder} --out"):
        Checkpoint.open(folder)


def test_a_page_of_an_allowed_origin_may_search_and_read_what_matters() -> None:
    preflight, refused, health = ask(
        ("OPTIONS", "/solve", {"headers": PREFLIGHT}),
        ("POST", "/solve", {"json": SEARCH, "headers": {"Origin": PAGE}}),
        ("GET", "/health", {"headers": {"Origin": PAGE}}),
        cors_origins=f"https://app.example, {PAGE}",
    )
    assert preflight.status_code == 200
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    allowed = preflight.headers["Access-Control-Allow-Headers"].lower()
    assert {"content-type", "authorization", "idempotency-key"} <= set(allowed.split(", "))
    assert refused.status_code == 503
    for answer in (preflight, refused, health):
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        # A cookie would let a page use a key that it does not hold.
        assert "Access-Control-Allow-Credentials" not in answer.headers
    exposed = set(refused.headers["Access-Control-Expose-Headers"].split(", "))
    assert {"Retry-After", "X-Request-Id", "Idempotent-Replayed"} <= exposed


def test_a_page_may_send_what_openais_client_sends_and_delete_files() -> None:
    sent = "authorization,content-type,x-stainless-lang,x-stainless-os,x-stainless-arch,"
    sent += "x-stainless-runtime,x-stainless-runtime-version,x-stainless-package-version,"
    sent += "x-stainless-retry-count,x-stainless-timeout,openai-organization,openai-project,"
    sent += "x-stepback-budget-tokens"
    wanted = PREFLIGHT | {"Access-Control-Request-Headers": sent}
    chat, delete = ask(
        ("OPTIONS", "/v1/chat/completions", {"headers": wanted}),
        (
            "OPTIONS",
            "/v1/files/file-1",
            {"headers": PREFLIGHT | {"Access-Control-Request-Method": "DELETE"}},
        ),
        cors_origins=PAGE,
    )
    assert (chat.status_code, delete.status_code) == (200, 200), chat.text


def test_a_byte_order_mark_before_a_body_is_passed_over() -> None:
    body = b"\xef\xbb\xbf" + json.dumps(SEARCH).encode()
    headers = {"Content-Type": "application/json"}
    plain, marked, wide = (
        answer
        for answer in ask(
            ("POST", "/solve", {"json": SEARCH}),
            ("POST", "/solve", {"content": body, "headers": headers}),
            (
                "POST",
                "/solve",
                {"content": json.dumps(SEARCH).encode("utf-16"), "headers": headers},
            ),
        )
    )
    assert plain.status_code == marked.status_code == 503
    assert wide.json()["error"]["code"] == "invalid_json"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/nothing"),
        ("PUT", "/v1/embeddings"),
        ("PUT", "/v1/files"),
        ("POST", "/v1/models"),
        ("POST", "/v1/batches"),
        ("POST", "/v1/chat/completions"),
    ],
)
def test_errors_of_v1_are_spelled_as_openais_clients_read_them(
    tmp_path: Path, method: str, path: str
) -> None:
    jobs = SecretStr(f"sqlite:///{tmp_path}/jobs.db")
    [answer] = ask((method, path, {"json": {}}), database_url=jobs)
    error = answer.json()["error"]
    assert set(error) == {"type", "message", "param", "code"}
    expected = "not_found" if answer.status_code == 404 else "invalid_request_error"
    assert error["type"] == expected and answer.status_code in (400, 404, 405)


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("completions", {"max_completion_tokens": 5}, "max_completion_tokens"),
        ("completions", {"reasoning_effort": "low"}, "reasoning_effort"),
        ("completions", {"messages": []}, "messages"),
        ("completions", {"prompt_embeds": "x"}, "prompt_embeds"),
        ("chat/completions", {"prompt": "x"}, "prompt"),
        ("chat/completions", {"max_new_tokens": 5}, "max_new_tokens"),
        ("chat/completions", {"reasoning": {"effort": "low"}}, "reasoning"),
        ("chat/completions", {"thinking": {"type": "enabled"}}, "thinking"),
        ("chat/completions", {"return_token_ids": True}, "return_token_ids"),
        ("chat/completions", {"extra_body": {"strategy": "greedy"}}, "extra_body"),
    ],
)
def test_a_parameter_that_would_be_swallowed_is_refused(
    path: str, fields: dict[str, Any], param: str
) -> None:
    line = "countdown:3,5=15"
    chat = {"messages": [{"role": "user", "content": line}]}
    usual = chat if path.startswith("chat") else {"prompt": line}
    [answer] = ask(("POST", f"/v1/{path}", {"json": usual | fields}))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "unsupported_parameter")
    assert error["param"] == param


def test_a_field_is_named_without_the_types_that_it_may_have() -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "stop": 5}
    [answer] = ask(("POST", "/v1/chat/completions", {"json": body}))
    assert answer.json()["error"]["param"] == "stop"


def test_a_body_that_is_too_large_is_an_error_that_the_page_can_read() -> None:
    [answer] = ask(
        ("POST", "/solve", {"content": b"x" * 2048, "headers": {"Origin": PAGE}}),
        cors_origins="*",
        max_body_bytes=1024,
    )
    assert answer.status_code == 413 and answer.headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("origins", ["", "https://app.example"])
def test_no_other_page_may(origins: str) -> None:
    for answer in ask(
        ("OPTIONS", "/solve", {"headers": PREFLIGHT}),
        ("GET", "/health", {"headers": {"Origin": PAGE}}),
        cors_origins=origins,
    ):
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    "path",
    ["/health", "/ready", "/ready?for=traffic", "/version", "/docs", "/metrics", "/v1/models",
     "/openapi.json", "/nowhere", "/solve"],
)  # fmt: skip
def test_head_is_what_get_would_be_without_its_body(path: str) -> None:
    got, head = ask(("GET", path, {}), ("HEAD", path, {}))
    assert head.status_code == got.status_code
    assert head.headers["Content-Type"] == got.headers["Content-Type"]
    assert got.content and head.content == b""


def test_head_of_events_does_not_wait_for_their_end() -> None:
    async def endless() -> AsyncGenerator[bytes]:
        while True:
            yield b"event: step\n\n"
            await asyncio.sleep(0.01)

    async def run() -> httpx.Response:
        answer = StreamingResponse(endless(), media_type="text/event-stream")
        transport = httpx.ASGITransport(HeadAsGet(answer))
        async with httpx.AsyncClient(transport=transport, base_url="http://c") as client:
            return await client.head("/v1/searches/search-1/events")

    head = asyncio.run(asyncio.wait_for(run(), 60))
    assert head.status_code == 200 and head.content == b""


def ask_under(prefix: str, *paths: str, root_path: str = "/stepback") -> list[httpx.Response]:
    return ask(*(("GET", prefix + path, {}) for path in paths), root_path=root_path)


@pytest.mark.parametrize("prefix", ["", "/stepback"], ids=["taken away", "left there"])
def test_a_proxy_may_publish_the_server_under_a_prefix(prefix: str) -> None:
    paths = ("/health", "/openapi.json", "/docs", "/docs-files/swagger-ui.css")
    answers = ask_under(prefix, *paths)
    assert [answer.status_code for answer in answers] == [200] * 4
    assert answers[1].json()["servers"] == [{"url": "/stepback"}]


@pytest.mark.parametrize("path", ["", "/", "/ui"])
@pytest.mark.parametrize("prefix", ["", "/stepback"], ids=["taken away", "left there"])
def test_a_prefix_without_a_slash_leads_to_the_page(prefix: str, path: str) -> None:
    [answer] = ask_under(prefix, path or ("" if prefix else "/"))
    assert answer.headers["Location"] == "/stepback/ui/"
    [page] = ask_under(prefix, "/ui/")
    assert page.status_code == 200 and "<html" in page.text


def test_a_search_below_the_prefix_is_counted_as_one() -> None:
    search, metrics = ask(
        ("POST", "/stepback/solve", {"json": SEARCH}),
        ("GET", "/metrics", {}),
        root_path="/stepback",
    )
    assert search.status_code == 503
    assert re.search(r'stepback_\w+\{[^}]*code="engine_unavailable"[^}]*\} 1', metrics.text)


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_documentation_needs_nothing_from_elsewhere(page: str) -> None:
    [html] = ask(("GET", page, {}))
    assert "//" not in re.sub(r"<!--.*?-->|//[^\n\"']*\n", "", html.text)
    named = re.findall(r"(?:src|href|url|spec-url)(?:=|: )[\"']([^\"']+)", html.text)
    assert len(named) >= 3 and not [each for each in named if each.startswith(("/", "http"))]
    for answer in ask(*(("GET", f"/{each}", {}) for each in named)):
        assert answer.status_code == 200 and len(answer.content) > 1000


SERVICE_LINKS = {
    "STEPBACK_SERVICE_HOST": "10.96.14.7",
    "STEPBACK_SERVICE_PORT": "80",
    "STEPBACK_SERVICE_PORT_HTTP": "80",
    "STEPBACK_PORT": "tcp://10.96.14.7:80",
    "STEPBACK_PORT_80_TCP": "tcp://10.96.14.7:80",
    "STEPBACK_PORT_80_TCP_PROTO": "tcp",
    "STEPBACK_PORT_80_TCP_PORT": "80",
    "STEPBACK_PORT_80_TCP_ADDR": "10.96.14.7",
}


@pytest.mark.parametrize("service", ["STEPBACK", "STEPBACK_CONTROLLER", "STEPBACK_ENGINE_0"])
def test_variables_of_a_service_named_like_the_program_are_passed_over(service: str) -> None:
    links = {name.replace("STEPBACK", service, 1): value for name, value in SERVICE_LINKS.items()}
    assert Settings.read(links) == Settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("STEPBACK_PORT", "tcp:8000"),
        ("STEPBACK_PROT", "tcp://10.96.14.7:80"),
        ("STEPBACK_SERVICE", "x"),
        ("STEPBACK_CORS_ORIGINS", "localhost:5173/"),
        ("STEPBACK_CORS_ORIGINS", "http://localhost:5173/path"),
        ("STEPBACK_ROOT_PATH", "stepback"),
        ("STEPBACK_ROOT_PATH", "/stepback/"),
        ("STEPBACK_ROOT_PATH", "//elsewhere"),
    ],
)
def test_a_misspelt_setting_is_still_refused(variable: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=variable):
        Settings.read({variable: value})


def test_a_defect_is_an_error_that_the_page_can_read() -> None:
    async def run() -> httpx.Response:
        settings: dict[str, Any] = {"cors_origins": PAGE, "database_url": NO_JOBS}
        app = create_app(Settings(**settings), Checkpoint.open(CHECKPOINT), unreachable)

        async def broken(_: Any) -> Any:
            raise RuntimeError("a defect")

        app.add_route("/broken", broken)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://c") as client:
            return await client.get("/broken", headers={"Origin": PAGE})

    answer = asyncio.run(run())
    assert answer.status_code == 500 and answer.headers["Access-Control-Allow-Origin"] == PAGE
