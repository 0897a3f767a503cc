"""A real controller with JSON logs and a collector: what it logs, and what it traces."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests import warm
from tests.conftest import controller
from tests.server.observability.collector import Collector, attributes, collecting

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SECRET = 987654
SOLVABLE = {"task": "countdown", "problem": {"numbers": [3, 5, 7, 25], "target": 41}}


@dataclass
class Seen:
    """Requests, and what the controller had written when it had stopped."""

    answer: httpx.Response
    refusals: list[httpx.Response]
    collector: Collector
    log: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]

    def span(self, request_id: str) -> Span:
        [span] = [
            s
            for s in self.collector.spans
            if attributes(s).get("stepback.request_id") == request_id
        ]
        return span


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    log = tmp_path_factory.mktemp("observed") / "log.txt"
    with pytest.MonkeyPatch.context() as environment, collecting() as (collector, endpoint):
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        # vLLM reads how it shall write its log as it is imported.
        with controller(log, start=warm.cold, log_format="json") as url:
            seen = Seen(*_ask(url), collector, "")
        # It has stopped, so it has sent and written everything.
        seen.log = Path(log).read_text()
        yield seen


def _ask(url: str) -> tuple[httpx.Response, list[httpx.Response]]:
    def solve(body: dict[str, Any], **headers: str) -> httpx.Response:
        return httpx.post(f"{url}/solve", json=body, headers=headers, timeout=300)

    named = {"X-Request-Id": "mine-1", "traceparent": f"00-{TRACE}-{PARENT}-01"}
    answer = solve(
        SOLVABLE
        | {
            "breadth": 2,
            "select": "perplexity",
        },
        **named,
    )
    bad_number = {"task": "countdown", "problem": {"numbers": [3, 5], "target": SECRET}}
    refusals = [
        solve(bad_number, **{"X-Request-Id": "mine-2"}),
        solve({"task": "chess", "problem": {}}, **{"X-Request-Id": "two words"}),
    ]
    return answer, refusals


def test_one_span_a_search_under_the_callers_and_one_a_round_under_it(seen: Seen) -> None:
    result = seen.answer.json()
    search = seen.span("mine-1")
    assert search.name == "search"
    assert (search.trace_id.hex(), search.parent_span_id.hex()) == (TRACE, PARENT)
    said = attributes(search)
    assert said["stepback.search_id"] == result["id"]
    assert said["stepback.strategy"] == "best_first"
    assert said["stepback.select"] == "perplexity"
    assert said["stepback.breadth"] == 2
    assert said["stepback.status"] == result["status"]
    assert said["stepback.stop_reason"] == "exhausted"
    assert said["stepback.tokens.generated"] == result["usage"]["generated_tokens"]

    rounds = [s for s in seen.collector.spans if s.parent_span_id == search.span_id]
    assert len(rounds) > 1
    assert {(r.name, r.trace_id) for r in rounds} == {("engine round", search.trace_id)}
    counts = [attributes(r) for r in rounds]
    for name, total in (("samples", "engine_requests"), ("tokens.generated", "generated_tokens")):
        assert sum(int(str(c[f"stepback.{name}"])) for c in counts) == result["usage"][total]


def test_a_refused_search_is_an_error_without_its_content(seen: Seen) -> None:
    refused = seen.span("mine-2")
    assert refused.status.code == Status.STATUS_CODE_ERROR
    assert attributes(refused)["error.type"] == "out_of_range"
    [event] = refused.events
    assert event.name == "exception"
    everything = b"".join(request.SerializeToString() for request in seen.collector.requests)
    assert str(SECRET) not in everything.decode(errors="replace")
    assert str(SECRET) not in seen.log


def test_a_request_id_is_the_callers_own_where_it_is_well_formed(seen: Seen) -> None:
    ids = [answer.headers["X-Request-Id"] for answer in (seen.answer, *seen.refusals)]
    assert ids[:2] == ["mine-1", "mine-2"]
    assert len(ids[2]) == 32 and ids[2] != "two words"


def test_a_request_has_one_line_in_the_access_log(seen: Seen) -> None:
    access = [line for line in seen.lines if line["logger"] == "stepback_server.access"]
    solved, *refused = [line for line in access if line["path"] == "/solve"]
    result = seen.answer.json()
    assert solved["request_id"] == "mine-1"
    assert (solved["method"], solved["status"], solved["level"]) == ("POST", 200, "INFO")
    assert solved["seconds"] >= result["usage"]["seconds_searching"] > 0
    assert solved["search"] == result["id"]
    assert solved["stop_reason"] == "exhausted" and solved["caller"] is None
    assert solved["generated_tokens"] == result["usage"]["generated_tokens"]
    assert [(line["status"], line["code"]) for line in refused] == [
        (422, "out_of_range"),
        (404, "unknown_task"),
    ]
    # A probe that succeeds is not worth a line.
    assert not [line for line in access if line["path"] == "/ready" and line["status"] == 200]


def test_the_processes_lines_are_json_uvicorns_and_vllms_too(seen: Seen) -> None:
    loggers = {line["logger"].split(".")[0] for line in seen.lines}
    assert {"stepback_server", "uvicorn", "vllm"} <= loggers
    assert all({"time", "level", "message"} <= line.keys() for line in seen.lines)
