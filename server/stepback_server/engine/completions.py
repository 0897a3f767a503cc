"""vLLM's /v1/completions in token ids: request bodies, and samples out of the streams. Pure.

Checked against vLLM 0.32: `vllm/entrypoints/openai/completion/`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from aiohttp import ClientPayloadError
from pydantic import BaseModel
from pydantic_core import to_json

from stepback_server.engine.base import (
    FINISH_REASONS,
    Alternative,
    Finish,
    Sample,
    SampleRequest,
    without_sampled,
)

PATH = "/v1/completions"
ABORT_PATH = "/inference/v1/abort_requests"
"""Aborts by name, and streams the rest; only with the server's --enable-scale-out."""

_TOKEN = "token_id:"
_DATA = "data: "
_DONE = "[DONE]"


def request_body(request: SampleRequest, *, model: str, name: str) -> bytes:
    """The JSON body for a request: its n continuations in one, which is about three times as fast
    as one by one.

    It has one seed, and vLLM samples continuation i with that seed + i.
    """
    body = {
        "model": model,
        "request_id": name,
        # By this, a router between here and the servers can keep a search together.
        "user": request.tree or None,
        # Ids and no text: the server runs with --skip-tokenizer-init.
        "prompt": request.ids,
        "cache_salt": request.salt or None,
        "n": request.n,
        "seed": None if request.seeds is None else request.seeds[0],
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        # Said in full, or the server's generation_config.json would fill it in.
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "stop_token_ids": request.stop_ids,
        "ignore_eos": True,
        # 0 gives the sampled token's own, which is always needed.
        "logprobs": request.alternatives,
        "return_token_ids": True,
        # Without a tokenizer the server cannot write tokens; with this it names them token_id:N.
        "return_tokens_as_token_ids": True,
        "stream": True,
        # A chunk when a continuation begins and one when it ends: streamed token by token, vLLM
        # gives a sixth of its throughput.
        "stream_interval": max(1, request.max_tokens),
        "stream_options": {"include_usage": True},
    }
    return to_json(body)


# Bytes: a whole continuation, with its log-probabilities.
_LONGEST_LINE = 1 << 24


class Lines:
    """Cuts a stream of bytes into its lines."""

    def __init__(self) -> None:
        # Bytes of a line that has not ended.
        self._pieces: list[bytes] = []
        self._length = 0

    def cut(self, data: bytes) -> list[str]:
        """The lines that these bytes end, without the empty ones. Raises ClientPayloadError."""
        first, *lines = data.split(b"\n")
        self._pieces.append(first)
        self._length += len(first)
        # A server that never ends its line would fill this process's memory.
        if self._length > _LONGEST_LINE:
            raise ClientPayloadError(f"its answer has a line of more than {_LONGEST_LINE:,} bytes")
        if not lines:
            return []
        lines.insert(0, b"".join(self._pieces))
        # What comes after the last line end is the beginning of the next line.
        self._pieces = [lines.pop()]
        self._length = len(self._pieces[0])
        try:
            return [text for line in lines if (text := line.decode().rstrip())]
        except ValueError as error:
            raise ClientPayloadError(f"its answer is no text ({error})") from error


class _Logprobs(BaseModel):
    # Numbers are checked by pydantic here, where an answer is still a foreign text: beyond this
    # module they are trusted.
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]


class _Choice(BaseModel):
    index: int
    token_ids: list[int]
    logprobs: _Logprobs | None = None
    finish_reason: Literal["stop", "length", "abort"] | None = None


class _Details(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens_details: _Details | None = None


class _Chunk(BaseModel):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


@dataclass(slots=True)
class _Partial:
    ids: list[int] = field(default_factory=list[int])
    logprobs: list[float] = field(default_factory=list[float])
    alternatives: list[tuple[Alternative, ...]] = field(
        default_factory=list[tuple[Alternative, ...]]
    )


class Stream:
    """Gathers one streamed answer into samples."""

    def __init__(self, request: SampleRequest) -> None:
        self._request = request
        self._running = {index: _Partial() for index in range(request.n)}
        self._last: Sample | None = None

    def feed(self, line: str) -> list[Sample]:
        """Take a line of the stream; gives the samples that it ends. Raises ClientPayloadError.

        vLLM tells how much of the prompt was cached once, of the request's first continuation, and
        only when all have ended. Each of the others had at least as much, so the last to end waits
        for that number and carries all of it.
        """
        if not line.startswith(_DATA):
            return []
        text = line.removeprefix(_DATA)
        if text == _DONE:
            # vLLM says nothing of what was aborted before its first token.
            return self._release(0) + self._cut_off(unseen=False)
        try:
            chunk = _Chunk.model_validate_json(text)
            ended = [sample for choice in chunk.choices if (sample := self._add(choice))]
        except (ValueError, KeyError) as error:
            raise ClientPayloadError(f"its answer cannot be read: {text[:200]}") from error
        # vLLM answers 200 before it samples, so an error comes in the stream.
        if chunk.error is not None:
            raise ClientPayloadError(f"it answered with an error: {chunk.error}")
        # The last one is held back for the cached tokens, which come in the chunk after it.
        if not self._running and ended:
            self._last = ended.pop()
        details = chunk.usage.prompt_tokens_details if chunk.usage else None
        if details is not None:
            # Told once, and each of the n had it.
            ended += self._release((details.cached_tokens or 0) * self._request.n)
        return ended

    def give_up(self, *, was_sent: bool) -> list[Sample]:
        """Return the unfinished samples of a stream that is left before its end."""
        return self._release(0) + self._cut_off(unseen=was_sent)

    @property
    def is_complete(self) -> bool:
        """Tell whether every continuation was given out."""
        return not self._running and self._last is None

    def _cut_off(self, *, unseen: bool) -> list[Sample]:
        running, self._running = self._running, {}
        return [
            self._sample(
                index,
                partial,
                Finish.ABORTED,
                # The most that it can have been: a budget is never exceeded, at worst not used up.
                self._request.max_tokens - len(partial.ids) if unseen else 0,
            )
            for index, partial in running.items()
        ]

    def _add(self, choice: _Choice) -> Sample | None:
        partial = self._running[choice.index]
        partial.ids += choice.token_ids
        if choice.logprobs is not None:
            partial.logprobs += choice.logprobs.token_logprobs
            if self._request.alternatives:
                at_each = zip(choice.token_ids, choice.logprobs.top_logprobs, strict=True)
                partial.alternatives += [
                    without_sampled(token, _by_id(at)) for token, at in at_each
                ]
        if choice.finish_reason is None:
            return None
        del self._running[choice.index]
        return self._sample(choice.index, partial, FINISH_REASONS[choice.finish_reason], 0)

    def _sample(self, index: int, partial: _Partial, finish: Finish, unseen: int) -> Sample:
        return Sample(
            index=index,
            ids=tuple(partial.ids),
            logprobs=tuple(partial.logprobs),
            finish=finish,
            cached_tokens=0,
            alternatives=tuple(partial.alternatives),
            unseen_tokens=unseen,
        )

    def _release(self, cached_tokens: int) -> list[Sample]:
        last, self._last = self._last, None
        return [replace(last, cached_tokens=cached_tokens)] if last else []


def _by_id(at: dict[str, float]) -> Iterator[Alternative]:
    return ((int(name.removeprefix(_TOKEN)), logprob) for name, logprob in at.items())
