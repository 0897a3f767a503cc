"""Limits at the edge: the size of a body, the life of a connection; HEAD."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress

from fastapi import Request
from h11 import LocalProtocolError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stepback_server.api.errors import response_of
from stepback_server.concurrency import Alarm, Interrupted
from stepback_server.errors import ApiError

_log = logging.getLogger(__name__)


class BodyLimit:
    """ASGI middleware: answers 413 instead of reading a body past `limit` bytes."""

    def __init__(self, app: ASGIApp, limit: int, limits: Mapping[str, int] | None = None) -> None:
        """`limits`: of paths that have one of their own."""
        self._app = app
        self._limit = limit
        self._limits = limits or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limits.get(scope["path"], self._limit)
        # What is declared too large is refused before a byte of it is read.
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            await self._refusal(scope, limit)(scope, receive, send)
            return
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                # A chunked body declares no length.
                if read > limit:
                    raise _TooLarge
            return message

        try:
            await self._app(scope, limited, send)
        except _TooLarge:
            await self._refusal(scope, limit)(scope, receive, send)

    def _refusal(self, scope: Scope, limit: int) -> ASGIApp:
        message = f"The body is too large: send at most {limit} bytes."
        error = ApiError("body_too_large", message, headers={"Connection": "close"})
        return response_of(error, scope["path"])


class BelowPrefix:
    """ASGI middleware: takes the prefix that a proxy publishes the server under from the path, if
    the proxy left it there."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._prefix and f"{scope.get('path', '')}/".startswith(f"{self._prefix}/"):
            path: str = scope["path"].removeprefix(self._prefix) or "/"
            raw: bytes = scope["raw_path"].removeprefix(self._prefix.encode()) or b"/"
            scope = {**scope, "path": path, "raw_path": raw}
        await self._app(scope, receive, send)


class HeadAsGet:
    """ASGI middleware: HEAD is answered as GET, without the body. Load balancers and monitors ask
    so. Of events, which may come for hours, the headers are the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        is_answered = Alarm()

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.body":
                # An answer to HEAD has no body, whatever its Content-Length says.
                message = {**message, "body": b""}
            await send(message)
            if _begins_events(message):
                await send({"type": "http.response.body", "body": b""})
                is_answered.ring()
                # Until that has cancelled this: nothing more may be sent.
                await asyncio.Event().wait()

        with suppress(Interrupted):
            async with is_answered.interrupts():
                await self._app({**scope, "method": "GET"}, receive, send_head)


def _begins_events(message: Message) -> bool:
    kind = dict(message.get("headers", ())).get(b"content-type", b"")
    return bool(kind.startswith(b"text/event-stream"))


class BrokenConnections:
    """ASGI middleware that drops the answer to a caller who has broken HTTP meanwhile.

    uvicorn has answered and closed the connection. Without this, each request with rubbish after it
    would leave a traceback in the log.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_if_possible(message: Message) -> None:
            try:
                await send(message)
            except LocalProtocolError as error:
                _log.debug("an answer could not be sent: %s", error)

        await self._app(scope, receive, send_if_possible)


class _TooLarge(BaseException):
    """Past every handler of the application, up to the middleware that raised it."""


@asynccontextmanager
async def until_hang_up(request: Request) -> AsyncGenerator[None]:
    """Cancel what is awaited inside, and raise Interrupted, once the caller hangs up."""
    # A task of its own: ASGI tells of a hang-up only to who receives.
    gone = Alarm()
    watcher = asyncio.create_task(_ring_on_hang_up(request, gone))
    try:
        async with gone.interrupts():
            yield
    finally:
        watcher.cancel()


async def _ring_on_hang_up(request: Request, gone: Alarm) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    gone.ring()
