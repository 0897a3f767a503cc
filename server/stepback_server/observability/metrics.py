"""Prometheus metrics of the server. Every label has few values, whatever callers send; the names of
keys are the operator's own."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from stepback_core.schemas import SolveResult
from stepback_server.engine.base import Sample
from stepback_server.errors import ERRORS
from stepback_server.gateway.tenant import Tenant

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
# The controller's own time of a round is within 2 ms (docs/scaling.md), so its buckets begin at a
# tenth of one.
_OWN_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5)
_STEPS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Described:
    """A metric as the operators' page shows it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """Values that are kept elsewhere and read when Prometheus asks."""

    searching: Callable[[], float]
    queued: Callable[[], float]
    engines_up: Callable[[], float]
    restarts: Callable[[], float]
    counts_alone: Callable[[], float] = lambda: 0
    jobs_waiting: Callable[[], float] = lambda: 0
    jobs_running: Callable[[], float] = lambda: 0


class Metrics:
    """The server's own metrics, in a separate registry from the engine's."""

    def __init__(self, live: Live) -> None:
        # vLLM puts its own metrics into the process's registry.
        self._registry = CollectorRegistry()
        self.described: list[Described] = []
        self._searches = self._counter(
            "stepback_searches",
            "Searches that were answered",
            ["strategy", "status", "stop_reason"],
        )
        self._refused = self._counter(
            "stepback_refused", "Requests to /solve that ended in an error, by its code", ["code"]
        )
        self._ignored_fields = self._counter(
            "stepback_ignored_fields",
            "Fields of requests to OpenAI's routes that nobody here knows; they were ignored",
        )
        self._abandoned = self._counter(
            "stepback_abandoned", "Searches, waiting or in flight, whose caller hung up"
        )
        self._tokens = self._counter(
            "stepback_tokens",
            "Tokens of searches, abandoned and failed ones too: generated, of these discarded, and "
            "taken from the prefix cache",
            ["kind"],
        )
        self._key_searches = self._counter(
            "stepback_key_searches", "Searches that were answered, by the key's name", ["key"]
        )
        self._key_tokens = self._counter(
            "stepback_key_tokens",
            "Generated tokens of searches, abandoned and failed ones too, by the key's name",
            ["key"],
        )
        self._samples = self._counter("stepback_samples", "Samples asked of the engine")
        self._backtracks = self._counter(
            "stepback_backtracks", "Branches that ended in the marker, of answered searches"
        )
        self._queue_seconds = self._histogram(
            "stepback_queue_seconds",
            "Seconds in the queue, also of those who were refused there or hung up",
        )
        self._search_seconds = self._histogram("stepback_search_seconds", "Seconds of searching")
        self._round_seconds = self._histogram(
            "stepback_engine_round_seconds", "Seconds of one engine round: one call for samples"
        )
        self._own_seconds = self._histogram(
            "stepback_controller_seconds",
            "The controller's own seconds of one engine round: from the engine's delivery to the "
            "next round or the answer",
            _OWN_SECONDS,
        )
        self._scorer_calls = self._counter(
            "stepback_scorer_calls",
            "Calls of scorers, by what came of them: answered, timeout, unreachable, refused, "
            "malformed, or paused after failures",
            ["scorer", "outcome"],
        )
        self._scorer_seconds = self._histogram(
            "stepback_scorer_seconds", "Seconds of one call of a scorer", labels=["scorer"]
        )
        self._kept_steps = self._histogram(
            "stepback_kept_steps",
            "Steps kept before an engine round: 0 at the prompt, more after a roll-back",
            _STEPS,
        )
        self._answer_steps = self._histogram(
            "stepback_answer_steps", "Steps of the answers", _STEPS
        )
        self._settle_seconds = self._histogram(
            "stepback_shared_limits_seconds",
            "Seconds of one round with the database over the limits that controllers share",
            _OWN_SECONDS,
        )
        self._checks = self._counter(
            "stepback_checker_calls", "Calls of plug-ins' checkers, by task", ["task"]
        )
        self._check_failures = self._counter(
            "stepback_checker_failures",
            "Calls of plug-ins' checkers without an answer, by task and the reason's first word",
            ["task", "reason"],
        )
        self._check_seconds = self._histogram(
            "stepback_checker_seconds",
            "Seconds of calls of plug-ins' checkers, their wait included",
        )
        self._show(live)
        # Present from the start, so that the first refusal is already an increase.
        for code in ERRORS:
            self._refused.labels(code)

    def _counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        self.described.append(Described(f"{name}_total", "counter", tuple(labels), text))
        return Counter(name, text, labels, registry=self._registry)

    def _histogram(
        self,
        name: str,
        text: str,
        buckets: Sequence[float] = _SECONDS,
        labels: Sequence[str] = (),
    ) -> Histogram:
        self.described.append(Described(name, "histogram", tuple(labels), text))
        return Histogram(name, text, labels, buckets=buckets, registry=self._registry)

    def _show(self, live: Live) -> None:
        families = _LiveMetrics(live)
        for family in families.collect():
            suffix = "_total" if family.type == "counter" else ""
            name = family.name + suffix
            self.described.append(Described(name, family.type, (), family.documentation))
        self._registry.register(families)

    def answered(self, result: SolveResult, tenant: Tenant) -> None:
        """Count one result, and whose it is."""
        usage = result.usage
        self._key_searches.labels(tenant.name).inc()
        self._searches.labels(result.strategy, result.status, result.stop_reason).inc()
        self._backtracks.inc(usage.backtracks)
        self._search_seconds.observe(usage.seconds_searching)
        if result.answer is not None:
            self._answer_steps.observe(len(result.answer.steps))

    def sampled(self, sample: Sample, tenant: Tenant) -> None:
        """Count what one sample has cost, and whom."""
        self._key_tokens.labels(tenant.name).inc(sample.generated_tokens)
        self._tokens.labels("generated").inc(sample.generated_tokens)
        self._tokens.labels("cached").inc(sample.cached_tokens)

    def discarded(self, tokens: int) -> None:
        """Count generated tokens of a search that has ended and are in no answer."""
        self._tokens.labels("discarded").inc(tokens)

    def queued(self, seconds: float) -> None:
        """Note the time that a search was in the queue, whatever came after."""
        self._queue_seconds.observe(seconds)

    def settled(self, seconds: float) -> None:
        """Note one round with the database over limits."""
        self._settle_seconds.observe(seconds)

    def refused(self, code: str) -> None:
        """Count one refusal; `code` is one of the error body's."""
        self._refused.labels(code).inc()

    def ignored(self, fields: int) -> None:
        """Count fields that a request had and that were ignored."""
        self._ignored_fields.inc(fields)

    def abandoned(self) -> None:
        """Count one search that no caller waits for any more."""
        self._abandoned.inc()

    def expanding(self, kept_steps: int, samples: int) -> None:
        """Note how deep an engine round begins, and how wide."""
        self._kept_steps.observe(kept_steps)
        self._samples.inc(samples)

    def round(self, seconds: float) -> None:
        """Note one engine round."""
        self._round_seconds.observe(seconds)

    def scorer_called(self, scorer: str, outcome: str, seconds: float) -> None:
        """Count one call of a scorer."""
        self._scorer_calls.labels(scorer, outcome).inc()
        if seconds:
            self._scorer_seconds.labels(scorer).observe(seconds)

    def own_time(self, seconds: float) -> None:
        """Note the controller's own time of one engine round."""
        self._own_seconds.observe(seconds)

    def checked(self, task: str, seconds: float, failure: str | None) -> None:
        """Count one call of a plug-in's checker; from any thread."""
        self._checks.labels(task).inc()
        self._check_seconds.observe(seconds)
        if failure is not None:
            self._check_failures.labels(task, failure).inc()

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text form. An embedded vLLM keeps its metrics in the
        process's registry; remote ones are asked for theirs at their own addresses."""
        return generate_latest(self._registry) + generate_latest(REGISTRY)


class _LiveMetrics(Collector):
    """Reads what is live; a counter that is kept elsewhere stays a counter."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def collect(self) -> Iterable[Metric]:
        live = self._live
        gauges = (
            ("stepback_searching", "Searches in flight", live.searching),
            ("stepback_queued", "Searches that wait for a place", live.queued),
            (
                "stepback_jobs_waiting",
                "Background searches and lines of batches of known keys that wait for this model, "
                "divided by all controllers of the database: where all serve one model, the sum "
                "over them is the whole",
                live.jobs_waiting,
            ),
            (
                "stepback_jobs_running",
                "Background searches and lines of batches that this controller has begun",
                live.jobs_running,
            ),
            ("stepback_engines_up", "Engines that can be sampled from", live.engines_up),
            (
                "stepback_limits_fallback",
                "1 while the database is slow or gone and the limits of keys hold for this "
                "controller alone",
                live.counts_alone,
            ),
        )
        for name, text, read in gauges:
            yield GaugeMetricFamily(name, text, value=read())
        yield CounterMetricFamily(
            "stepback_engine_restarts", "Lost engines that came back", value=live.restarts()
        )
