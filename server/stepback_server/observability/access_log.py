"""The access log: a name for each request, and one line at its end."""

import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stepback_server.redaction import hide_keys
from stepback_server.request_context import (
    CLIENT_CLOSED_REQUEST,
    CURRENT,
    RequestRecord,
    name_request,
)

_log = logging.getLogger("stepback_server.access")

# Asked every few seconds, for ever: worth a line only where they fail.
_PROBES = frozenset({"/health", "/ready", "/metrics"})
_LONGEST_PATH = 200


class AccessLog:
    """ASGI middleware, the outermost. Bodies, queries and headers are never logged,
    nor is anything that looks like an API key."""

    def __init__(
        self,
        app: ASGIApp,
        refused: Callable[[str], None] = lambda code: None,
        counted_paths: Collection[str] = (),
    ) -> None:
        """`refused` is called with the error code of each request to `counted_paths` that has one:
        the one place where refusals are counted."""
        self._app = app
        self._refused = refused
        self._counted_paths = counted_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = _record(Headers(scope=scope))
        status = CLIENT_CLOSED_REQUEST
        is_counted = scope["path"] not in self._counted_paths

        async def named(message: Message) -> None:
            nonlocal status, is_counted
            # Before the caller sees the error: then its next look at the metrics shows it.
            if not is_counted and (code := record.fields.get("code")) is not None:
                is_counted = True
                self._refused(code)
            if message["type"] == "http.response.start":
                status = message["status"]
                # On every answer, also on those of the framework.
                MutableHeaders(scope=message)["X-Request-Id"] = record.id
            await send(message)

        started = time.perf_counter()
        token = CURRENT.set(record)
        try:
            await self._app(scope, receive, named)
        except Exception:  # a defect: it has been answered with 500, or the answer breaks off
            _log.exception("unexpected error")
        finally:
            _write(scope, status, time.perf_counter() - started, record)
            CURRENT.reset(token)


def _record(headers: Headers) -> RequestRecord:
    given = {name: headers.get(name, "") for name in ("traceparent", "tracestate")}
    # Collectors and engines read them.
    trace = {name: value for name, value in given.items() if value and hide_keys(value) == value}
    return RequestRecord(name_request(headers.get("x-request-id")), trace)


def _write(scope: Scope, status: int, seconds: float, record: RequestRecord) -> None:
    # As it came: percent-encoded, so that no path can forge a line.
    path = hide_keys(scope["raw_path"].decode("ascii", "replace"))[:_LONGEST_PATH]
    level = logging.DEBUG if path in _PROBES and status < 400 else logging.INFO
    fields: Mapping[str, Any] = {
        "method": hide_keys(scope["method"]),
        "path": path,
        "status": status,
        "seconds": round(seconds, 6),
        "caller": record.caller,
        **record.fields,
    }
    _log.log(level, "request", extra={"fields": fields})
