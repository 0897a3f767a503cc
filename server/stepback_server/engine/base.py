"""The engine seam: token ids in, samples out. Nothing above it knows vLLM, nothing below it search.

EngineError             none, or another one than configured: the operator's fault, at the start
├── EngineUnavailable   not started yet, dead, or shut down: try again later (503)
├── PromptRefused       the engine cannot take these ids: the caller's fault (422)
├── ReloadNotOffered    the engine takes no new weights while it runs (501)
└── ReloadFailed        it took them, and what it has now is unknown: it must be replaced (500)
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from stepback_server.engine.death import Death


class EngineError(Exception):
    """No engine, or another one than the configuration promises."""


class EngineUnavailable(EngineError):
    """No engine works now.

    Its text is for the log: it may name an address, or quote a server. `public` is for callers, and
    so is `retry_after`, in whole seconds. `death` is for operators: how the last engine ended.
    `begun` is False where the engine did not take the request: nothing of it was generated.
    """

    def __init__(
        self,
        detail: str,
        *,
        public: str = "the engine was lost",
        retry_after: int = 2,
        death: Death | None = None,
        begun: bool = True,
    ) -> None:
        super().__init__(detail)
        self.public = public
        self.retry_after = retry_after
        self.death = death
        # Decides what a repetition costs: a request that was taken may have generated all that it
        # asked for.
        self.begun = begun

    @classmethod
    def of_death(cls, death: Death) -> "EngineUnavailable":
        """A process of the engine is gone."""
        return cls(f"the engine has died: {death}", death=death)


class PromptRefused(EngineError):
    """The engine refuses the prompt: too long, empty, or ids out of its vocabulary."""


class ReloadNotOffered(EngineError):
    """The engine takes no new weights while it runs; it goes on with those that it has."""


class ReloadFailed(EngineError):
    """New weights could not be loaded, or not all of them."""


class Finish(StrEnum):
    """Reason why the engine stopped a sample."""

    STOP = "stop"
    """A stop id, which is the last of the sample's ids."""
    LENGTH = "length"
    ABORTED = "aborted"
    # A finish and no exception: the other samples of the same request may be whole, and are kept.
    LOST = "lost"
    """Lost with one of several engines. It has no ids, only what it may have cost; it may be
    asked for again."""


FINISH_REASONS = {"stop": Finish.STOP, "length": Finish.LENGTH, "abort": Finish.ABORTED}
"""Finishes by vLLM's words. An "error" is none of them: then the engine counts as lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRequest:
    """n continuations of one id sequence."""

    ids: tuple[int, ...]
    n: int
    max_tokens: int
    """Limit of each continuation, its stop token included."""
    temperature: float
    """0 is greedy."""
    seeds: tuple[int, ...] | None
    """A seed for each continuation, or None for fresh randomness."""
    stop_ids: tuple[int, ...]
    alternatives: int = 0
    """Number of likeliest tokens to return at every position."""
    # The pool's session affinity goes by this name.
    tree: str = ""
    """Requests of one search share this name: a prefix cache that has served one helps the next."""
    # A cached prefix was computed in other batches, so its numbers are rounded otherwise: a search
    # with a seed shares none.
    salt: str = ""
    """A prefix is cached for requests with the same salt alone."""


Alternative = tuple[int, float]
"""A token that could have been sampled, and its log-probability."""


def without_sampled(sampled: int, likeliest: Iterable[Alternative]) -> tuple[Alternative, ...]:
    """Return the likeliest tokens at a position but for the sampled one, which vLLM lists too."""
    return tuple(each for each in likeliest if each[0] != sampled)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One continuation and what it cost."""

    index: int
    """Its place among the request's n."""
    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Natural log, one an id, of the model's own distribution before temperature."""
    finish: Finish
    cached_tokens: int
    """Prompt tokens that came from the prefix cache."""
    alternatives: tuple[tuple[Alternative, ...], ...] = ()
    """The likeliest tokens at each position, without the sampled one; at most as many as were
    asked for; empty where none were."""
    # Too many rather than too few: a budget is a promise.
    unseen_tokens: int = 0
    """Tokens that may have been generated beyond `ids`: the upper limit, where an abort or a loss
    left their number unknown."""

    @property
    def generated_tokens(self) -> int:
        """Tokens that this cost, never too few: a budget is settled with them."""
        return len(self.ids) + self.unseen_tokens


# What a turn to the end needs: an answer that no engine has to write.
EMPTY_SAMPLE = Sample(index=0, ids=(), logprobs=(), finish=Finish.STOP, cached_tokens=0)
"""The continuation of a text that has ended."""

# Synchronous: the reader of the stream must not be held up by the search.
OnSample = Callable[[Sample], None]


class Engine(Protocol):
    """The engine that a search samples from."""

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        """Sample; call `deliver` with each continuation as it ends; return when all have ended.

        Once `stop` is set, what still runs is aborted and delivered with what it has. Cancelling
        the call aborts without delivery. Raises EngineError; where there are other engines than the
        one that is lost, delivers what is lost with it instead.
        """
        ...


class OwnedEngine(Engine, Protocol):
    """An engine that a supervisor keeps alive."""

    version: str
    """vLLM's own; "unknown" where it does not tell."""

    async def running(self) -> int:
        """Continuations that the engine is working on now."""
        ...

    async def check(self) -> None:
        """Raise EngineUnavailable unless the engine lives."""
        ...

    async def progress(self) -> int:
        """Grows while the engine works, for whomever; one that has work and makes no progress
        hangs. Raises EngineUnavailable."""
        ...

    async def reload(self, checkpoint: Path) -> bool:
        """Load a checkpoint of the same shape in the place of what is served, and forget what was
        cached of that; whether the weights differ now. Nothing may be in flight.

        Raises ReloadNotOffered, with nothing changed; ReloadFailed and EngineUnavailable, after
        which the weights may be of either checkpoint or of both."""
        ...

    async def close(self, *, kill: bool) -> None:
        """Stop the engine and every process of it; `kill` does not ask it first."""
        ...
