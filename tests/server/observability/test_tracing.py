"""Tracing by itself: off without its variable, refused where it cannot work, passed on."""

import asyncio
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
from stepback_server.observability.tracing import Tracing, TracingError
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
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


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
    assert "is not installed" in run.stderr and "extra [otel]" in run.stderr


def test_another_protocol_is_refused() -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with pytest.raises(TracingError, match="OTEL_EXPORTER_OTLP_PROTOCOL"):
        Tracing.from_environment(environment, "1")
