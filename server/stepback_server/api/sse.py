"""A search as server-sent events: its bytes on the wire, and when to stop sending them."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Protocol

from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from pydantic import TypeAdapter
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from stepback_core.events import ErrorEvent, SolveEvent
from stepback_server.api.protocol import CHUNKS
from stepback_server.concurrency import Interrupted, run_unless
from stepback_server.handlers.failures import failure_of
from stepback_server.request_context import note
from stepback_server.solve.stream import LiveSearch

_log = logging.getLogger(__name__)
_ANSWER = """\
The result; with `stream`, server-sent events until the result or an error, which are the last.

The schema of `text/event-stream` is that of each event. Between events there may be comments \
(lines that begin with a colon), sent while nothing else happens so that no connection looks idle: \
they say nothing, and readers of such streams skip them."""
# nginx gathers an answer before it passes it on, unless a header forbids it.
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Work(Protocol):
    """Work that a stream reports on."""

    async def ended(self) -> None:
        """Wait for its end."""
        ...

    async def close(self) -> None:
        """End it, if it still runs."""
        ...


class WorkStream(StreamingResponse):
    """Sends what work reports. The work ends with its caller, and not the other way round: a caller
    who reads slowly may take `linger_seconds` longer, then the stream is cut off."""

    def __init__(
        self,
        live: Work,
        chunks: AsyncGenerator[bytes],
        *,
        media_type: str = EventSourceResponse.media_type,
        headers: Mapping[str, str] | None = None,
        linger_seconds: float = 60.0,
    ) -> None:
        super().__init__(chunks, media_type=media_type, headers=_HEADERS | dict(headers or {}))
        self._live = live
        self._linger_seconds = linger_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[CHUNKS] = True
        try:
            await run_unless(self.stream_response(send), self._give_up(receive))
        except Interrupted:
            _log.info("a stream ended before its caller had read all of it")
        finally:
            await self._live.close()

    async def _give_up(self, receive: Receive) -> None:
        """Return when sending on makes no sense."""
        try:
            await run_unless(self._linger(), self.listen_for_disconnect(receive))
        except Interrupted:
            return

    async def _linger(self) -> None:
        await self._live.ended()
        await asyncio.sleep(self._linger_seconds)


class EventStream(WorkStream):
    """Sends a search that has begun, as Stepback's own events."""

    def __init__(
        self,
        live: LiveSearch,
        *,
        headers: Mapping[str, str] | None = None,
        linger_seconds: float = 60.0,
    ) -> None:
        super().__init__(live, _chunks(live), headers=headers, linger_seconds=linger_seconds)


async def _chunks(live: LiveSearch) -> AsyncGenerator[bytes]:
    try:
        async for event in live.events():
            yield KEEPALIVE_COMMENT if event is None else _encode(event)
    except Exception as error:  # Of any kind: the status is sent, so the stream must say it.
        failure = failure_of(error)
        if failure.code == "internal":
            _log.error("a stream ended in an unexpected error", exc_info=error)
        note(code=failure.code)
        yield _encode(ErrorEvent(status=failure.status, error=failure.body.error))


def _encode(event: SolveEvent) -> bytes:
    # ASCII, since the formatter takes U+2028 and its kin for the end of a line.
    return format_sse_event(event=event.type, data_str=json.dumps(event.model_dump(mode="json")))


def with_events(schema: dict[str, Any]) -> dict[str, Any]:
    """Add the events to the OpenAPI schema, next to the result of `POST /solve`."""
    # OpenAPI 3.1, unlike 3.2 with its `itemSchema`, has no word for a sequence: `schema` is one
    # event on the wire, and `contentSchema` the JSON in its data.
    events = TypeAdapter[Any](SolveEvent).json_schema(
        mode="serialization", ref_template="#/components/schemas/{model}"
    )
    components = schema["components"]
    components["schemas"] = events.pop("$defs") | components["schemas"]
    answer = schema["paths"]["/solve"]["post"]["responses"]["200"]
    answer["description"] = _ANSWER
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"title": "SolveEvent"} | events,
    }
    answer["content"][EventSourceResponse.media_type] = {
        "schema": {
            "type": "object",
            "description": "One event of the stream.",
            "required": ["event", "data"],
            "properties": {"event": {"type": "string"}, "data": data},
        }
    }
    return schema
