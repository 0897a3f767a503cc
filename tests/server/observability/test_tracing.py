"""Tracing by itself: off without its variable, refused where it cannot work, passed on."""

import asyncio
import os
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, format_span_id

from stepback_core.schemas import SolveRequest
from stepback_server.engine.base import EngineUnavailable, OnSample, SampleRequest
from stepback_server.observability.engine import ObservedEngine
from stepback_server.observability.tracing import (
    Tracing,
    leave_out_missing_propagators,
    tracing_or_warning,
)
from stepback_server.request_context import trace_headers
from tests.server.keeping import metrics
from tests.server.search.scripted import END, GRAMMAR, ScriptedEngine

SAMPLE = SampleRequest(ids=(7,), n=2, max_tokens=4, temperature=1.0, seeds=None, stop_ids=())
QUESTION = SolveRequest(prompt="x")


class SendingEngine(ScriptedEngine):
    """Sends what an engine behind HTTP would: the trace context as headers."""

    def __init__(self) -> None:
        super().__init__(lambda request, index: (END,))
        self.headers: dict[str, str] = {}
        self.is_dead = False

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        self.headers |= trace_headers()
        if self.is_dead:
            raise EngineUnavailable("the engine has died")
        await super().sample(request, stop, deliver)


async def search_once(tracing: Tracing, engine: SendingEngine) -> None:
    with tracing.search(QUESTION):
        traced = ObservedEngine(engine, metrics(), GRAMMAR, 0, tracing=tracing)
        await traced.sample(SAMPLE, asyncio.Event(), lambda sample: None)


def tracing_into_memory() -> tuple[Tracing, InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracing(provider), exporter


def test_a_rounds_span_is_current_while_the_engine_works() -> None:
    tracing, exporter = tracing_into_memory()
    engine = SendingEngine()
    asyncio.run(search_once(tracing, engine))
    round_span, search = exporter.get_finished_spans()
    assert round_span.parent is not None and round_span.context is not None
    assert search.context is not None and search.parent is None
    assert round_span.parent.span_id == search.context.span_id
    assert not trace_headers()
    assert engine.headers["traceparent"].split("-")[2] == format_span_id(round_span.context.span_id)
    assert round_span.attributes and round_span.attributes["stepback.samples"] == 2


def test_an_engine_that_dies_marks_round_and_search() -> None:
    tracing, exporter = tracing_into_memory()
    engine = SendingEngine()
    engine.is_dead = True
    with pytest.raises(EngineUnavailable):
        asyncio.run(search_once(tracing, engine))
    for span in exporter.get_finished_spans():
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description == "the engine has died"


def test_without_the_variable_nothing_of_opentelemetry_is_imported() -> None:
    script = (
        "import sys; import stepback_server.app\n"
        "from stepback_server.observability.tracing import Tracing\n"
        "assert Tracing.from_environment({}, '1') is None\n"
        "assert 'opentelemetry' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


def test_a_missing_extra_is_named() -> None:
    script = (
        "import sys; sys.modules['opentelemetry.sdk'] = None\n"
        "from stepback_server.observability.tracing import Tracing\n"
        "Tracing.from_environment({'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://localhost:1'}, '1')\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=500, check=False
    )
    assert run.returncode != 0
    assert "is not installed" in run.stderr and "stepback-llm[otel]" in run.stderr


ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
    ],
)
def test_what_cannot_be_obeyed_is_one_warning_and_no_traces(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environment = ENDPOINT | {variable: value}
    for name, given in environment.items():
        monkeypatch.setenv(name, given)  # the exporter reads them itself
    assert tracing_or_warning(environment, "1") is None
    [record] = [each for each in caplog.records if each.name.startswith("stepback")]
    assert record.levelname == "WARNING" and "there are no traces" in record.message


def test_a_propagator_that_is_not_installed_is_one_warning_and_no_failed_search() -> None:
    # In a process of its own: OpenTelemetry reads the variable once, when it is imported.
    script = (
        "import logging, os; logging.basicConfig()\n"
        "from stepback_server.observability.tracing import tracing_or_warning\n"
        "assert tracing_or_warning(os.environ, '1') is None\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], env=os.environ | ENDPOINT | {"OTEL_PROPAGATORS": "b3,no"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "there are no traces" in run.stderr and "b3" in run.stderr


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        ("tracecontext, baggage,b3", "tracecontext,baggage"),
        ("b3,xray", "none"),
        ("tracecontext", None),
        ("none", None),
        ("", None),
    ],
)
def test_propagators_that_are_not_installed_are_left_out_before_vllm_meets_them(
    asked: str, left: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    environment = {"OTEL_PROPAGATORS": asked}
    leave_out_missing_propagators(environment)
    assert environment == {"OTEL_PROPAGATORS": asked if left is None else left}
    assert len(caplog.records) == (left is not None)


def test_opentelemetry_can_then_be_imported() -> None:
    script = (
        "import os\n"
        "from stepback_server.observability.tracing import leave_out_missing_propagators\n"
        "leave_out_missing_propagators(os.environ)\n"
        "import opentelemetry.propagate\n"
    )
    environment = os.environ | {"OTEL_PROPAGATORS": "tracecontext,b3"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=300)


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, "stepback"),
        ({"OTEL_SERVICE_NAME": "mine"}, "mine"),
        ({"OTEL_SERVICE_NAME": ""}, "stepback"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "team=a,service.name=theirs"}, "theirs"),
    ],
)
def test_traces_have_an_endpoint_of_their_own_and_the_name_that_the_operator_gives(
    variables: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}
    for variable, given in (environment := environment | variables).items():
        monkeypatch.setenv(variable, given)
    tracing = Tracing.from_environment(environment, "1")
    assert tracing is not None
    provider = tracing._provider  # pyright: ignore[reportPrivateUsage]
    assert provider.resource.attributes["service.name"] == name
    tracing.close()


def test_the_protocol_of_traces_comes_before_that_of_everything() -> None:
    both = {
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    }
    tracing = Tracing.from_environment(ENDPOINT | both, "1")
    assert tracing is not None
    tracing.close()


@pytest.mark.parametrize(
    "switch",
    [
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_SDK_DISABLED": "TRUE"},
        {"OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_an_operator_can_switch_traces_off(
    switch: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    bad = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    assert tracing_or_warning(ENDPOINT | bad | switch, "1") is None
    assert not caplog.records
