"""Reading a streamed search, without I/O: from server-sent events to typed ones, or to an error."""

from collections.abc import AsyncGenerator, Generator
from typing import get_args

import httpx
from httpx_sse import EventSource, ServerSentEvent, SSEError
from pydantic import TypeAdapter, ValidationError

from stepback_client.errors import TransportError, error_of
from stepback_core.events import ErrorEvent, ProgressEvent, ResultEvent, SolveEvent

_TYPES = frozenset(
    kind.model_fields["type"].default for kind in (*get_args(ProgressEvent), ErrorEvent)
)
_EVENT = TypeAdapter[ProgressEvent | ErrorEvent](SolveEvent)


def read_events(response: httpx.Response) -> Generator[ProgressEvent]:
    """The events of an answer that streams, up to its result. Raises StepbackError."""
    try:
        for message in EventSource(response).iter_sse():
            if event := _read(message, response):
                yield event
            if isinstance(event, ResultEvent):
                return
    except (httpx.HTTPError, SSEError) as error:
        raise _broken(error) from error
    raise _cut_short()


async def aread_events(response: httpx.Response) -> AsyncGenerator[ProgressEvent]:
    """The same over an asyncio connection."""
    try:
        async for message in EventSource(response).aiter_sse():
            if event := _read(message, response):
                yield event
            if isinstance(event, ResultEvent):
                return
    except (httpx.HTTPError, SSEError) as error:
        raise _broken(error) from error
    raise _cut_short()


def _read(message: ServerSentEvent, response: httpx.Response) -> ProgressEvent | None:
    """The typed event; None for a type that is new. Raises the error that it may stand for."""
    # A later server may tell more than this client knows.
    if message.event not in _TYPES:
        return None
    try:
        event = _EVENT.validate_json(message.data)
    except ValidationError as error:
        raise TransportError(f"the stream's {message.event} is not a Stepback event") from error
    if isinstance(event, ErrorEvent):
        raise error_of(event.status, event.error, request_id=response.headers.get("X-Request-Id"))
    return event


def _broken(error: Exception) -> TransportError:
    return TransportError(f"the stream broke before its result: {error or type(error).__name__}")


def _cut_short() -> TransportError:
    return TransportError("the stream ended before its result: the search is lost, ask again")
