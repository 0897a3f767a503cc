"""Telemetry of searches: metrics always, spans where there is tracing, fields of the access log."""

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext

from stepback_core.schemas import SolveRequest, SolveResult
from stepback_core.trace import TokenGrammar
from stepback_server.engine.base import Engine, Sample
from stepback_server.gateway.tenant import Tenant
from stepback_server.observability.engine import ObservedEngine
from stepback_server.observability.metrics import Metrics
from stepback_server.observability.tracing import SearchSpan, Tracing
from stepback_server.request_context import note

Charge = Callable[[Tenant, int], None]
"""Takes generated tokens from a tenant's rate limit."""


class SearchTelemetry:
    """Telemetry of one search."""

    def __init__(
        self,
        metrics: Metrics,
        tracing: Tracing | None,
        grammar: TokenGrammar,
        span: SearchSpan | None,
        tenant: Tenant,
        charge: Charge,
    ) -> None:
        self._metrics = metrics
        self._tracing = tracing
        self._grammar = grammar
        self._span = span
        self._tenant = tenant
        self._charge = charge
        # Generated tokens that are not yet known to be kept or discarded.
        self._unsettled = 0

    @contextmanager
    def engine(self, engine: Engine, prompt_tokens: int) -> Generator[Engine]:
        """Give the engine to search with, whose every sample is counted."""
        observed = ObservedEngine(
            engine,
            self._metrics,
            self._grammar,
            prompt_tokens,
            tracing=self._tracing,
            on_sample=self._sampled,
        )
        yield observed
        # Not in a `finally`: a search that was given up has no answer to have written.
        observed.finish()

    def _sampled(self, sample: Sample) -> None:
        """Count the cost of a sample: the one place, also where the search was given up."""
        self._charge(self._tenant, sample.generated_tokens)
        self._metrics.sampled(sample, self._tenant)
        self._unsettled += sample.generated_tokens

    def ended(self) -> None:
        """Count as discarded all that is not part of an answer."""
        self._metrics.discarded(self._unsettled)

    def answered(self, result: SolveResult) -> None:
        """Count a result."""
        self._metrics.answered(result, self._tenant)
        # Of a search that is given up nothing is taken off: all of it was for nothing.
        self._unsettled -= result.usage.generated_tokens - result.usage.discarded_tokens
        if self._span is not None:
            self._span.answered(result)
        note(
            search=result.id,
            strategy=str(result.strategy),
            outcome=str(result.status),
            stop_reason=str(result.stop_reason),
            generated_tokens=result.usage.generated_tokens,
            seconds_queued=round(result.usage.seconds_queued, 6),
        )


class Telemetry:
    """Opens the telemetry of each search."""

    def __init__(
        self, metrics: Metrics, tracing: Tracing | None, grammar: TokenGrammar, charge: Charge
    ) -> None:
        """`charge` takes the generated tokens of each sample from its tenant's rate limit."""
        self._metrics = metrics
        self._tracing = tracing
        self._grammar = grammar
        self._charge = charge

    @contextmanager
    def search(self, request: SolveRequest, tenant: Tenant) -> Generator[SearchTelemetry]:
        """Observe a whole search, its time in the queue included."""
        spanned = nullcontext() if self._tracing is None else self._tracing.search(request)
        with spanned as span:
            seen = SearchTelemetry(
                self._metrics, self._tracing, self._grammar, span, tenant, self._charge
            )
            try:
                yield seen
            # Cancelled means that its caller hung up: errors have their own codes.
            except asyncio.CancelledError:
                self._metrics.abandoned()
                raise
            finally:
                seen.ended()
