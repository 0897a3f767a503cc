"""One search's view of an engine: the same seam, measured or traced on its way through."""

import asyncio
import time

from stepback_core.trace import TokenGrammar
from stepback_server.engine.base import Engine, OnSample, Sample, SampleRequest
from stepback_server.engine.wrapper import PassingEngine
from stepback_server.observability.metrics import Metrics
from stepback_server.observability.tracing import Tracing


class MeteredEngine(PassingEngine):
    """Measures the rounds of one search, and the controller's own time between them.

    A round is one call of `sample`. The controller's own time of a round is everything that the
    search spends after the engine delivers and before it asks again, or, after the last round,
    before `finish`: recording, the seam's way back, picking, ranking, writing the answer, and
    whatever else the event loop does meanwhile. What comes before the first round is added to it.
    Where rounds overlap, their deliveries count and the time until the next delivery does not,
    since the engine is at work.
    """

    def __init__(
        self, engine: Engine, metrics: Metrics, grammar: TokenGrammar, prompt_tokens: int
    ) -> None:
        super().__init__(engine)
        self._metrics = metrics
        self._grammar = grammar
        self._prompt_tokens = prompt_tokens
        self._at_work = 0
        self._own = 0.0
        self._handed_over = time.perf_counter()
        """When the engine last gave control to the search."""
        self._is_first = True

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        def timed(sample: Sample) -> None:
            begun = time.perf_counter()
            deliver(sample)
            self._handed_over = time.perf_counter()
            self._own += self._handed_over - begun

        if not self._at_work:
            self._begin()
        self._at_work += 1
        kept_steps = len(self._grammar.step_ends(request.ids[self._prompt_tokens :]))
        self._metrics.expanding(kept_steps, request.n)
        started = time.perf_counter()
        try:
            await super().sample(request, stop, timed)
        finally:
            self._at_work -= 1
            self._metrics.round(time.perf_counter() - started)

    def finish(self) -> None:
        """The search is over, its answer written."""
        self._begin()

    def _begin(self) -> None:
        self._own += time.perf_counter() - self._handed_over
        if not self._is_first:
            self._metrics.own_time(self._own)
            self._own = 0.0
        self._is_first = False


class TracedEngine(PassingEngine):
    """A span for each round, current while the round lasts."""

    def __init__(self, engine: Engine, tracing: Tracing) -> None:
        super().__init__(engine)
        self._tracing = tracing

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        with self._tracing.round(request) as span:

            def counted(sample: Sample) -> None:
                span.delivered(sample)
                deliver(sample)

            await super().sample(request, stop, counted)
