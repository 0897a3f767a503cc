"""OpenTelemetry spans: one a search, and one an engine round as its child.

Nothing of OpenTelemetry is imported unless the standard variable OTEL_EXPORTER_OTLP_ENDPOINT is
set, or that of traces alone; the other OTEL_ variables mean what they mean everywhere. While a
round lasts its span is the current one, and `request.trace_headers` gives what an engine behind
HTTP sends to pass it on.
"""

import logging
from collections.abc import Generator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from stepback_core.errors import InvalidInput
from stepback_core.schemas import SolveRequest, SolveResult
from stepback_server.engine.base import Sample, SampleRequest
from stepback_server.request_context import CURRENT, ONWARD

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

_log = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_DISABLED = "OTEL_SDK_DISABLED"
_HTTP = "http/protobuf"
_PROPAGATORS = "OTEL_PROPAGATORS"


def leave_out_missing_propagators(environment: MutableMapping[str, str]) -> None:
    """Take propagators that are not installed out of the environment, with a warning.

    vLLM imports OpenTelemetry whether it traces or not, and that import fails with each of them.
    """
    asked = [
        name for each in environment.get(_PROPAGATORS, "").split(",") if (name := each.strip())
    ]
    if not asked:  # As usual: to look through what is installed takes a while.
        return
    installed = {each.name for each in entry_points(group="opentelemetry_propagator")}
    missing = [name for name in asked if name not in installed and name.lower() != "none"]
    if not installed or not missing:
        return
    _log.warning("%s: not installed, and left out: %s", _PROPAGATORS, ", ".join(missing))
    environment[_PROPAGATORS] = ",".join(each for each in asked if each not in missing) or "none"


def tracing_or_warning(environment: Mapping[str, str], version: str) -> "Tracing | None":
    """Spans as the environment asks for them."""
    # Where they cannot be made there are none, and one warning: a server is not down for its
    # telemetry.
    try:
        return Tracing.from_environment(environment, version)
    except InvalidInput as error:
        _log.warning("there are no traces: %s", error)
        return None


def _is_off(environment: Mapping[str, str]) -> bool:
    if environment.get(_DISABLED, "").strip().lower() == "true":
        return True
    return environment.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none"


def _check_protocol(environment: Mapping[str, str]) -> None:
    for variable in _PROTOCOLS:
        if protocol := environment.get(variable):
            if protocol.strip().lower() != _HTTP:
                raise InvalidInput(
                    f"{variable}={protocol}: only {_HTTP} is spoken here; collectors take it at "
                    "port 4318"
                )
            return


def _described(environment: Mapping[str, str], version: str) -> dict[str, str]:
    """The service's version, and its name unless the environment has one."""
    named = environment.get("OTEL_SERVICE_NAME")
    named = named or "service.name=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return {"service.version": version} | ({} if named else {"service.name": "stepback"})


class Tracing:
    """Makes spans. Make it with `from_environment`, and close it."""

    def __init__(self, provider: "TracerProvider", exporter: "SpanExporter | None" = None) -> None:
        """`exporter` sends the spans from `begin` on, if given; the provider has its own else."""
        self._provider = provider
        self._exporter = exporter
        self._tracer = provider.get_tracer("stepback")

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], version: str) -> "Tracing | None":
        """Spans over OTLP where the environment asks for them. Raises InvalidInput."""
        endpoint = next((each for each in _ENDPOINTS if environment.get(each)), None)
        if endpoint is None or _is_off(environment):
            return None
        _check_protocol(environment)
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        except ModuleNotFoundError as error:
            raise InvalidInput(
                f"{endpoint} is set, but {error.name} is not installed: "
                "pip install 'stepback-llm[otel]', or unset the variable"
            ) from error
        try:
            # Read at its import: a propagator that is not installed would fail each search.
            import_module("opentelemetry.propagate")

            resource = Resource.create(_described(environment, version))
            # `close` sends what is left, while the loop still lives.
            provider = TracerProvider(resource=resource, shutdown_on_exit=False)
            exporter = OTLPSpanExporter()
            # It judges its own variables as it is made, and starts a thread, which must wait.
            BatchSpanProcessor(InMemorySpanExporter()).shutdown()
        except Exception as error:  # the libraries raise of any kind for a variable they cannot use
            raise InvalidInput(f"an OTEL_ variable cannot be used: {error}") from error
        return cls(provider, exporter)

    def begin(self) -> None:
        """Start the thread that sends spans."""
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        if self._exporter is not None:
            self._provider.add_span_processor(BatchSpanProcessor(self._exporter))

    def close(self) -> None:
        """Send what is left; blocks while a collector does not answer, 10 s at most by default."""
        self._provider.shutdown()

    @contextmanager
    def search(self, request: SolveRequest) -> Generator["SearchSpan"]:
        """The span of one search, under the caller's own where it sent a `traceparent`."""
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind

        record = CURRENT.get()
        asked: dict[str, Any] = {
            "stepback.strategy": request.strategy,
            "stepback.breadth": request.breadth,
            "stepback.backtracks.limit": request.backtracks,
        }
        if record is not None:
            asked["stepback.request_id"] = record.id
        context = extract(record.trace if record is not None else {})
        with self._span("search", asked, context=context, kind=SpanKind.SERVER) as span:
            yield SearchSpan(span)

    @contextmanager
    def round(self, request: SampleRequest) -> Generator["RoundSpan"]:
        """The span of one engine round, a child of the search's."""
        from opentelemetry.propagate import inject
        from opentelemetry.trace import SpanKind

        asked = {
            "stepback.samples.asked": request.n,
            "stepback.tokens.given": len(request.ids),
            "stepback.tokens.limit": request.max_tokens,
        }
        with self._span("engine round", asked, kind=SpanKind.CLIENT) as span:
            counts, headers = RoundSpan(), dict[str, str]()
            inject(headers)
            token = ONWARD.set(headers)
            try:
                yield counts
            finally:
                ONWARD.reset(token)
                counts.write(span)

    @contextmanager
    def _span(self, name: str, attributes: dict[str, Any], **options: Any) -> Generator["Span"]:
        # Errors are recorded here: the library would add the traceback, and with it a problem's
        # content, which the errors of its validation quote.
        spanned: AbstractContextManager[Span] = self._tracer.start_as_current_span(
            name,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
            **options,
        )
        with spanned as span:
            try:
                yield span
            except BaseException as error:
                _record_error(span, error)
                raise


def _record_error(span: "Span", error: BaseException) -> None:
    """Mark a span as failed; one that was given up is no failure of anybody's."""
    from opentelemetry.trace import StatusCode

    kind = type(error).__name__
    # CancelledError: a caller that hangs up.
    if not isinstance(error, Exception):
        span.set_attribute("stepback.given_up", True)
        return
    code: str | None = getattr(error, "code", None)
    said = code or str(error)
    span.set_attribute("error.type", code or kind)
    span.add_event("exception", {"exception.type": kind, "exception.message": said})
    span.set_status(StatusCode.ERROR, said)


class SearchSpan:
    def __init__(self, span: "Span") -> None:
        self._span = span

    def answered(self, result: SolveResult) -> None:
        usage = result.usage
        self._span.set_attributes(
            {
                "stepback.search_id": result.id,
                "stepback.model": result.model,
                "stepback.select": result.select,
                "stepback.status": result.status,
                "stepback.stop_reason": result.stop_reason,
                "stepback.tokens.prompt": usage.prompt_tokens,
                "stepback.tokens.generated": usage.generated_tokens,
                "stepback.tokens.discarded": usage.discarded_tokens,
                "stepback.tokens.cached": usage.cached_tokens,
                "stepback.samples": usage.engine_requests,
                "stepback.backtracks": usage.backtracks,
                "stepback.seconds.queued": usage.seconds_queued,
            }
        )


class RoundSpan:
    """Adds up what a round delivers."""

    def __init__(self) -> None:
        self._samples = self._generated = self._cached = 0

    def delivered(self, sample: Sample) -> None:
        self._samples += 1
        self._generated += sample.generated_tokens
        self._cached += sample.cached_tokens

    def write(self, span: "Span") -> None:
        span.set_attributes(
            {
                "stepback.samples": self._samples,
                "stepback.tokens.generated": self._generated,
                "stepback.tokens.cached": self._cached,
            }
        )
