"""A language model small enough to be written down, for strategies that read its probabilities."""

import asyncio
from collections.abc import Mapping, Sequence
from math import log
from random import Random

from stepback_server.engine.base import Alternative, Finish, OnSample, Sample, SampleRequest

Table = Mapping[tuple[int, ...], Mapping[int, float]]
"""The probabilities of the next token after each text; texts that are not listed end at once."""


class ToyEngine:
    """The engine seam over a table. Greedy. Continuations end in a shuffled order."""

    def __init__(self, table: Table, prompt: Sequence[int], end: int, order: int = 0) -> None:
        self._table = table
        self._prompt = len(prompt)
        self._end = end
        self._random = Random(order)
        self.requests: list[SampleRequest] = []
        self.progress = 0

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        self.requests.append(request)
        await asyncio.sleep(self._random.random() / 500)
        deliver(self._continue(request) if not stop.is_set() else self.aborted())

    def _continue(self, request: SampleRequest) -> Sample:
        text = request.ids[self._prompt :]
        ids: list[int] = []
        logprobs: list[float] = []
        alternatives: list[tuple[Alternative, ...]] = []
        while len(ids) < request.max_tokens and not (ids and ids[-1] in request.stop_ids):
            ranked = self._ranked((*text, *ids))
            ids.append(ranked[0][0])
            logprobs.append(ranked[0][1])
            alternatives.append(tuple(ranked[1 : request.alternatives]))
        return Sample(
            index=0,
            ids=tuple(ids),
            logprobs=tuple(logprobs),
            finish=Finish.STOP if ids[-1] in request.stop_ids else Finish.LENGTH,
            cached_tokens=0,
            alternatives=tuple(alternatives),
        )

    def _ranked(self, text: tuple[int, ...]) -> list[Alternative]:
        following = self._table.get(text, {self._end: 1.0})
        return sorted(
            ((token, log(share)) for token, share in following.items()), key=lambda each: -each[1]
        )

    def aborted(self) -> Sample:
        return Sample(index=0, ids=(), logprobs=(), finish=Finish.ABORTED, cached_tokens=0)

    async def running(self) -> int:
        return 0

    async def check(self) -> None:
        """It always lives."""

    async def close(self, *, kill: bool) -> None:
        """It has nothing to close."""
