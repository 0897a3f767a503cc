"""Watches the service at work: what it counts, the spans that it makes, what its log says."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager, nullcontext

from stepback_core.schemas import SolveRequest, SolveResult
from stepback_core.trace import TokenGrammar
from stepback_server.engine.base import Engine, Sample
from stepback_server.gateway.rate_limit import Tenant
from stepback_server.observability.engine import MeteredEngine, TracedEngine
from stepback_server.observability.metrics import Metrics
from stepback_server.observability.tracing import SearchSpan, Tracing
from stepback_server.request_context import note


class Watched:
    """One search, as it is seen from outside."""

    def __init__(self, metrics: Metrics, span: SearchSpan | None, tenant: Tenant) -> None:
        self._metrics = metrics
        self._tenant = tenant
        self._span = span
        self._unsettled = 0
        """Generated tokens of which it is not yet known whether they are kept."""

    def sampled(self, sample: Sample) -> None:
        """The engine has worked for the search, whether anybody still waits for it or not."""
        self._metrics.sampled(sample, self._tenant)
        self._unsettled += sample.generated_tokens

    def ended(self) -> None:
        """What is not part of an answer is discarded, without an answer all of it."""
        self._metrics.discarded(self._unsettled)

    def answered(self, result: SolveResult) -> None:
        """The search has a result."""
        self._metrics.answered(result, self._tenant)
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


class Watch:
    """Metrics always; spans where there is tracing."""

    def __init__(self, metrics: Metrics, tracing: Tracing | None, grammar: TokenGrammar) -> None:
        self._metrics = metrics
        self._tracing = tracing
        self._grammar = grammar

    @contextmanager
    def search(self, request: SolveRequest, tenant: Tenant) -> Generator[Watched]:
        """Around a whole search, its time in the queue included."""
        spanned = nullcontext() if self._tracing is None else self._tracing.search(request)
        with spanned as span:
            watched = Watched(self._metrics, span, tenant)
            try:
                yield watched
            except asyncio.CancelledError:
                self._metrics.abandoned()
                raise
            finally:
                watched.ended()

    @contextmanager
    def engine(self, engine: Engine, prompt_tokens: int) -> Generator[Engine]:
        """Around the work with an engine: gives the engine to work with."""
        metered = MeteredEngine(engine, self._metrics, self._grammar, prompt_tokens)
        yield metered if self._tracing is None else TracedEngine(metered, self._tracing)
        metered.finish()
