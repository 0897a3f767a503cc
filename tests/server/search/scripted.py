"""A hand-written engine: answers from a script and keeps count, for what vLLM would hide."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from stepback_core.trace import TokenGrammar
from stepback_server.engine.base import (
    Finish,
    OnSample,
    ReloadNotOffered,
    Sample,
    SampleRequest,
)

END, MARKER, NEWLINE = 1, 2, 3
GRAMMAR = TokenGrammar(marker_id=MARKER, end_id=END, separator_ids=frozenset({NEWLINE}))

Script = Callable[[SampleRequest, int], tuple[int, ...]]
"""The ids that continuation `index` of a request would generate with no limit."""


class ScriptedEngine:
    version = "scripted"

    def __init__(self, script: Script, *, delay: float = 0.0) -> None:
        self._script = script
        self._delay = delay
        self.requests: list[SampleRequest] = []
        self.active = 0
        self.most_active = 0
        self.promised = 0
        """Tokens generated so far, and those that the requests at work may still generate."""
        self.most_promised = 0
        self.steps = 0

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        self.requests.append(request)
        self.active += request.n
        self.most_active = max(self.most_active, self.active)
        self.promised += request.n * request.max_tokens
        self.most_promised = max(self.most_promised, self.promised)
        undelivered = request.n
        try:
            for index in range(request.n):
                if self._delay:
                    await asyncio.sleep(self._delay)
                sample = self._sample(request, index, aborted=stop.is_set())
                undelivered -= 1
                self.active -= 1
                self.steps += 1
                self.promised -= request.max_tokens - len(sample.ids)
                deliver(sample)
        finally:
            self.active -= undelivered
            self.promised -= undelivered * request.max_tokens

    def _sample(self, request: SampleRequest, index: int, *, aborted: bool) -> Sample:
        whole = self._script(request, index)
        ids = () if aborted else whole[: request.max_tokens]
        finish = Finish.ABORTED if aborted else Finish.STOP
        if not aborted and len(ids) < len(whole):
            finish = Finish.LENGTH
        return Sample(
            index=index, ids=ids, logprobs=(-0.5,) * len(ids), finish=finish, cached_tokens=0
        )

    async def running(self) -> int:
        return self.active

    async def progress(self) -> int:
        return self.steps

    async def check(self) -> None:
        return None

    async def reload(self, checkpoint: Path) -> bool:
        raise ReloadNotOffered("a script has no weights")

    async def close(self, *, kill: bool) -> None:
        return None
