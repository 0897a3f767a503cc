"""What the server counts, for Prometheus. Every label has few values, whatever callers send."""

from collections.abc import Callable

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from stepback_core.wire import SolveResult

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The server's own metrics, in a registry of their own; the engine's stand beside them."""

    def __init__(
        self,
        *,
        searching: Callable[[], float],
        queued: Callable[[], float],
        restarts: Callable[[], float],
        engines_up: Callable[[], float],
    ) -> None:
        self._registry = CollectorRegistry()
        self._searches = Counter(
            "stepback_searches",
            "Searches that were answered",
            ["strategy", "status", "stop_reason"],
            registry=self._registry,
        )
        self._refused = Counter(
            "stepback_refused",
            "Requests to /solve that ended in an error, by its code",
            ["code"],
            registry=self._registry,
        )
        self._tokens = Counter(
            "stepback_tokens",
            "Tokens of searches: generated, of these discarded, and taken from the prefix cache",
            ["kind"],
            registry=self._registry,
        )
        self._samples = self._counter("stepback_samples", "Samples asked of the engine")
        self._backtracks = self._counter("stepback_backtracks", "Branches that ended in the marker")
        self._queue_seconds = self._histogram("stepback_queue_seconds", "Seconds in the queue")
        self._search_seconds = self._histogram("stepback_search_seconds", "Seconds of searching")
        for name, text, read in (
            ("stepback_searching", "Searches in flight", searching),
            ("stepback_queued", "Searches that wait for a place", queued),
            ("stepback_engine_restarts", "Lost engines that came back", restarts),
            ("stepback_engines_up", "Engines that can be sampled from", engines_up),
        ):
            Gauge(name, text, registry=self._registry).set_function(read)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, registry=self._registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(name, text, buckets=_SECONDS, registry=self._registry)

    def answered(self, result: SolveResult) -> None:
        """Count one result."""
        usage = result.usage
        self._searches.labels(result.strategy, result.status, result.stop_reason).inc()
        self._tokens.labels("generated").inc(usage.generated_tokens)
        self._tokens.labels("discarded").inc(usage.discarded_tokens)
        self._tokens.labels("cached").inc(usage.cached_tokens)
        self._samples.inc(usage.engine_requests)
        self._backtracks.inc(usage.backtracks)
        self._queue_seconds.observe(usage.seconds_queued)
        self._search_seconds.observe(usage.seconds_searching)

    def refused(self, code: str) -> None:
        """Count one refusal; `code` is one of the error body's."""
        self._refused.labels(code).inc()

    def render(self) -> bytes:
        """Everything in Prometheus' text form. An embedded vLLM keeps its metrics in the process's
        registry; remote ones are asked for theirs at their own addresses."""
        return generate_latest(self._registry) + generate_latest(REGISTRY)
