"""The engine seam of one search, measured and traced: the only wrapper on its way."""

import asyncio
import time
from contextlib import nullcontext

from stepback_core.trace import TokenGrammar
from stepback_server.engine.base import Engine, OnSample, Sample, SampleRequest
from stepback_server.observability.metrics import Metrics
from stepback_server.observability.tracing import RoundSpan, Tracing


class ObservedEngine:
    """Reports each sample, measures the rounds of one search, and makes a span of each.

    A round is one call of `sample`. The controller's own time of a round is everything that the
    search spends after the engine delivers and before it asks again, or, after the last round,
    before `finish`: recording, the seam's way back, picking, ranking, writing the answer, and
    whatever else the event loop does meanwhile. What comes before the first round is added to it.
    Where rounds overlap, their deliveries count and the time until the next delivery does not,
    since the engine is at work.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        grammar: TokenGrammar,
        prompt_tokens: int,
        *,
        tracing: Tracing | None = None,
        on_sample: OnSample = lambda sample: None,
    ) -> None:
        """`on_sample` receives each sample, also of a search that was given up meanwhile."""
        self._engine = engine
        self._metrics = metrics
        self._grammar = grammar
        self._prompt_tokens = prompt_tokens
        self._tracing = tracing
        self._on_sample = on_sample
        # Rounds in flight: only where there is none does time count as the controller's own.
        self._at_work = 0
        self._own = 0.0
        # When the engine last gave control to the search.
        self._handed_over = time.perf_counter()
        self._is_first = True

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        if not self._at_work:
            self._begin()
        self._at_work += 1
        kept_steps = len(self._grammar.step_ends(request.ids[self._prompt_tokens :]))
        self._metrics.expanding(kept_steps, request.n)
        started = time.perf_counter()
        traced = nullcontext() if self._tracing is None else self._tracing.round(request)
        try:
            with traced as span:
                await self._engine.sample(request, stop, self._observed(deliver, span))
        finally:
            self._at_work -= 1
            self._metrics.round(time.perf_counter() - started)

    def _observed(self, deliver: OnSample, span: RoundSpan | None) -> OnSample:
        def observed(sample: Sample) -> None:
            begun = time.perf_counter()
            self._on_sample(sample)
            if span is not None:
                span.delivered(sample)
            deliver(sample)
            self._handed_over = time.perf_counter()
            self._own += self._handed_over - begun

        return observed

    def finish(self) -> None:
        """End the last round's own time: the search is over, its answer written."""
        self._begin()

    def _begin(self) -> None:
        self._own += time.perf_counter() - self._handed_over
        if not self._is_first:
            self._metrics.own_time(self._own)
            self._own = 0.0
        self._is_first = False
