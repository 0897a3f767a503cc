"""Chunks of a streamed answer. Stepback's own events never enter it: clients take each for a
chunk."""

import json
import logging
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from typing import Any

from fastapi.sse import KEEPALIVE_COMMENT

from stepback_core.events import ProgressEvent, ResultEvent, StartedEvent
from stepback_core.schemas import SolveResult
from stepback_core.schemas.base import ResponseModel
from stepback_core.schemas.openai_answers import (
    ChatChunk,
    ChatDelta,
    ChunkChoice,
    Completion,
    OpenAiUsage,
    SearchReport,
)
from stepback_server.api.openai.answers import (
    Envelope,
    choices_of,
    completion_choices,
    usage_of,
)
from stepback_server.api.openai.reasoning import Reasoning, lines_of_tree
from stepback_server.api.openai.translation import AnswerOptions
from stepback_server.api.openai_errors import body_of
from stepback_server.handlers.failures import failure_of
from stepback_server.request_context import note
from stepback_server.solve.batch import Ended
from stepback_server.solve.stream import LiveSearch

_log = logging.getLogger(__name__)
_DONE = b"data: [DONE]\n\n"


async def chat_chunks(
    live: LiveSearch, wanted: AnswerOptions, envelope: Envelope
) -> AsyncGenerator[bytes]:
    """The role, reasoning as branches end, the answers, their finish, the usage, the end."""
    chunks = _ChatChunks(wanted, envelope)
    try:
        async for event in live.events():
            if event is None:
                yield KEEPALIVE_COMMENT
                continue
            for chunk in chunks.of(event):
                yield _encode(chunk)
        yield _DONE
    except Exception as error:  # of any kind: the status is sent, so the stream must say it
        yield _encode_error(error)


async def completion_chunks(
    rows: AsyncIterable[Ended | None], wanted: AnswerOptions, envelope: Envelope
) -> AsyncGenerator[bytes]:
    """Each prompt's answers as its search ends, the usage, the end."""
    results: list[SolveResult] = []
    try:
        async for ended in rows:
            if ended is None:
                yield KEEPALIVE_COMMENT
                continue
            place, result = ended
            if isinstance(result, Exception):
                raise result
            results.append(result)
            yield _encode(_completion_chunk(place, result, wanted, envelope))
        if wanted.usage:
            yield _encode(_last_completion_chunk(usage_of(results), envelope))
        yield _DONE
    except Exception as error:  # as above
        yield _encode_error(error)


class _ChatChunks:
    """Turns the events of one search into chunks."""

    def __init__(self, wanted: AnswerOptions, envelope: Envelope) -> None:
        self._wanted = wanted
        self._envelope = envelope
        self._reasoning = Reasoning()
        self._has_reasoned = False

    def of(self, event: ProgressEvent) -> Iterator[ChatChunk]:
        """The chunks of one event."""
        if isinstance(event, StartedEvent):
            yield self._chunk([ChunkChoice(index=0, delta=ChatDelta(role="assistant", content=""))])
        if self._wanted.reasoning and (lines := self._reasoning.lines(event)):
            yield self._reason(lines)
        if isinstance(event, ResultEvent):
            yield from self._end(event.result)

    def _reason(self, lines: list[str]) -> ChatChunk:
        text = ("\n" if self._has_reasoned else "") + "\n".join(lines)
        self._has_reasoned = True
        delta = ChatDelta(reasoning=text, reasoning_content=text)
        return self._chunk([ChunkChoice(index=0, delta=delta)])

    def _end(self, result: SolveResult) -> Iterator[ChatChunk]:
        wanted = self._wanted
        # A search that this request joined has sent no events.
        untold = wanted.reasoning and not self._has_reasoned
        if untold and (lines := list(lines_of_tree(result.tree or []))):
            yield self._reason(lines)
        choices = choices_of(result, wanted)
        for index, choice in enumerate(choices):
            role = None if index == 0 else "assistant"
            delta = ChatDelta(role=role, content=choice.text)
            told = ChunkChoice(index=index, delta=delta, logprobs=choice.chat_logprobs)
            yield self._chunk([told])
        finished = [
            ChunkChoice(index=index, delta=ChatDelta(), finish_reason=choice.finish_reason)
            for index, choice in enumerate(choices)
        ]
        yield self._chunk(finished, report=SearchReport.of(result, tree=wanted.tree))
        if wanted.usage:
            yield self._chunk([], usage=usage_of([result]))

    def _chunk(
        self,
        choices: list[ChunkChoice],
        *,
        usage: OpenAiUsage | None = None,
        report: SearchReport | None = None,
    ) -> ChatChunk:
        envelope = self._envelope
        return ChatChunk(
            id=envelope.id,
            created=envelope.created,
            model=envelope.model,
            system_fingerprint=envelope.system_fingerprint,
            choices=choices,
            usage=usage,
            stepback=report,
        )


def _completion_chunk(
    place: int, result: SolveResult, wanted: AnswerOptions, envelope: Envelope
) -> Completion:
    return Completion(
        id=envelope.id,
        created=envelope.created,
        model=envelope.model,
        system_fingerprint=envelope.system_fingerprint,
        choices=completion_choices(place, result, wanted, alone=True),
        stepback=SearchReport.of(result, tree=wanted.tree),
    )


def _last_completion_chunk(usage: OpenAiUsage, envelope: Envelope) -> Completion:
    return Completion(
        id=envelope.id,
        created=envelope.created,
        model=envelope.model,
        system_fingerprint=envelope.system_fingerprint,
        choices=[],
        usage=usage,
    )


def _encode(chunk: ChatChunk | Completion) -> bytes:
    return b"data: " + _json(chunk) + b"\n\n"


def _json(chunk: ResponseModel) -> bytes:
    fields = _given(chunk.model_dump(mode="json"))
    for choice in fields["choices"]:
        if "delta" in choice:
            choice["delta"] = _given(choice["delta"])
    # ASCII, since U+2028 and its kin end a line for some readers.
    return json.dumps(fields).encode()


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _encode_error(error: Exception) -> bytes:
    failure = failure_of(error)
    if failure.code == "internal":
        _log.error("a stream ended in an unexpected error", exc_info=error)
    note(code=failure.code)
    return b"data: " + json.dumps(body_of(failure)).encode() + b"\n\n"
