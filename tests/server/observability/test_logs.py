"""The log by itself: names of requests, lines, defects, and paths that would forge a line."""

import asyncio
import json
import logging

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from stepback_server.gateway.keys import new_key
from stepback_server.observability.access_log import AccessLog
from stepback_server.observability.logs import JsonLines, TextLines
from stepback_server.request_context import CURRENT, RequestRecord, name_request, note

SEEN: list[RequestRecord] = []


async def fine(request: Request) -> Response:
    note(tokens=3)
    record = CURRENT.get()
    assert record is not None
    SEEN.append(record)
    return PlainTextResponse("fine")


async def broken(request: Request) -> Response:
    raise RuntimeError("a defect")


def ask(path: str, **headers: str) -> httpx.Response:
    app = AccessLog(Starlette(routes=[Route("/fine", fine), Route("/broken", broken)]))

    async def run() -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://test", timeout=300
        ) as http:
            return await http.get(path, headers=headers)

    return asyncio.run(run())


def lines(log: pytest.LogCaptureFixture) -> list[str]:
    return [TextLines().format(record) for record in log.records if "access" in record.name]


def test_a_line_has_what_was_noted_and_no_query(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert ask("/fine?key=secret", **{"X-Request-Id": "abc"}).headers["X-Request-Id"] == "abc"
    [line] = lines(caplog)
    assert "method=GET path=/fine status=200" in line and "tokens=3" in line
    assert "secret" not in line
    assert CURRENT.get() is None


def test_a_defect_is_answered_and_logged_once_under_its_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    answer = ask("/broken", **{"X-Request-Id": "abc"})
    assert answer.status_code == 500 and answer.headers["X-Request-Id"] == "abc"
    defect, access = (record for record in caplog.records if "access" in record.name)
    assert defect.exc_info is not None and "a defect" in str(defect.exc_info[1])
    assert access.__dict__["fields"]["status"] == 500


def test_a_path_cannot_forge_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ask("/x%0a2026-01-01%20ERROR")
    [line] = lines(caplog)
    assert "\n" not in line and "path=/x%0a2026" in line.lower()


def test_a_key_in_the_wrong_place_is_neither_logged_nor_sent_back_nor_passed_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    SEEN.clear()
    key, _ = new_key("alice")
    headers = {name: key for name in ("X-Request-Id", "traceparent", "tracestate")}
    answer = ask(f"/fine/{key}?key={key}", **headers)
    ask("/fine", **{"X-Request-Id": f"id-{key}", "tracestate": f"vendor={key},a=b"})
    ask(f"/{key.replace('_', '%5F')}")
    assert key not in str(answer.headers)
    assert all("***" in line for line in lines(caplog)[::2])
    for each in (record for record in caplog.records if "access" in record.name):
        assert key.removeprefix("stepback_")[:20] not in TextLines().format(each)
        assert key.removeprefix("stepback_")[:20] not in JsonLines().format(each)
    assert SEEN and not any(record.trace for record in SEEN)


def test_a_trace_context_is_kept() -> None:
    given = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "stepback=1,vendor=2"}
    SEEN.clear()
    ask("/fine", **given)
    [record] = SEEN
    assert record.trace == given


@pytest.mark.parametrize("offered", [None, "", "a b", "a\nb", "é", "x" * 129, '"', "{}"])
def test_a_malformed_name_is_replaced(offered: str | None) -> None:
    assert name_request(offered) != offered


@pytest.mark.parametrize("offered", ["a", "x" * 128, "0af7-65.19:16_c"])
def test_a_well_formed_name_is_kept(offered: str) -> None:
    assert name_request(offered) == offered


def test_a_json_line_has_the_error_only_where_there_is_one() -> None:
    def line(error: Exception | None) -> dict[str, object]:
        exc_info = None if error is None else (type(error), error, None)
        record = logging.LogRecord("a.b", logging.INFO, "f", 1, "two\nlines", None, exc_info)
        record.fields = {"seconds": 0.5}
        said: dict[str, object] = json.loads(JsonLines().format(record))
        return said

    plain, failed = line(None), line(ValueError("bad"))
    assert plain.keys() == {"time", "level", "logger", "message", "seconds"}
    assert plain["message"] == "two\nlines" and plain["level"] == "INFO"
    assert "ValueError: bad" in str(failed["error"])
