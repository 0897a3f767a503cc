"""Reader of JSON bodies: one strict pass, bounded where Python's own reader is not, after the
caller's authentication."""

import codecs
import re
from collections.abc import Callable, Coroutine
from itertools import accumulate
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json

from stepback_server.api.authentication import authenticate, authenticate_early
from stepback_server.api.state import state_of
from stepback_server.errors import ERRORS, ApiError

# One that has no end counts to the end of the body, and no character is looked at twice: a hostile
# body takes no longer than another.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_OPENING, _CLOSING = b"[{", b"]}"
_NO_BRACKETS = bytes(set(range(256)) - set(_OPENING + _CLOSING))


class _StrictRequest(Request):
    """Reads JSON with pydantic's parser. Raises ValueError for numbers over 4,300 digits, lone
    surrogates, and nesting that is too deep; that is counted first, since a parser spends a level
    of its stack on each.

    A name that stands twice in an object counts as it stands last, as RFC 8259 lets a reader do.
    """

    is_too_deep = False

    async def json(self) -> Any:
        body = await self.body()
        most = state_of(self.app).settings.max_nesting
        if nesting(body, most) > most:
            self.is_too_deep = True
            # FastAPI lets no other error of a body pass as it is: it makes a 400 of the rest.
            raise HTTPException(ERRORS["nested_too_deeply"].status)
        # Editors and shells put a byte order mark there, which RFC 8259 lets a reader ignore.
        return from_json(body.removeprefix(codecs.BOM_UTF8))


def nesting(body: bytes, most: int) -> int:
    """Count the levels of objects and lists in JSON text; 0 where its brackets are at most `most`.
    For text that is not JSON the count means nothing."""
    if body.count(b"[") + body.count(b"{") <= most:
        return 0
    brackets = _STRING.sub(b"", body).translate(None, _NO_BRACKETS)
    return max(accumulate(1 if each in _OPENING else -1 for each in brackets), default=0)


class StrictRoute(APIRoute):
    """A route whose body is read so, and not before its caller is known where it needs a key."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        needs_key = any(each.call is authenticate for each in self.dependant.dependencies)

        async def strictly(request: Request) -> Response:
            if needs_key:
                # FastAPI parses a body before it asks dependencies, this one too.
                await authenticate_early(request)
            strict = _StrictRequest(request.scope, request.receive)
            try:
                return await handle(strict)
            except HTTPException:
                if strict.is_too_deep:
                    raise _refusal(state_of(request.app).settings.max_nesting) from None
                raise

        return strictly


def _refusal(most: int) -> ApiError:
    return ApiError(
        "nested_too_deeply",
        f"The body is nested too deeply: send at most {most} levels of objects and lists.",
    )


async def sent_as_json(request: Request) -> None:
    """A dependency of routes with a body. Raises ApiError for what is declared as something else,
    which would otherwise be refused as if it were not an object."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = kind.startswith("application/") and kind.endswith(("/json", "+json"))
    if not is_json and await request.body():
        raise ApiError(
            "not_declared_as_json",
            "Send the body with Content-Type: application/json.",
        )
