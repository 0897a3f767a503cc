"""How a JSON body is read: from callers who may ask, in one strict pass that bounds what Python's
own reader does not."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json

from stepback_server.api.authentication import authenticate, authenticate_early
from stepback_server.api.errors import ApiError


class _StrictRequest(Request):
    """Reads JSON with pydantic's parser: 200 levels at most, numbers of 4,300 digits, and only
    text that can be encoded again, so no half of a surrogate pair. ValueError says otherwise.

    A name that stands twice in an object counts as it stands last, as RFC 8259 lets a reader do.
    """

    async def json(self) -> Any:
        return from_json(await self.body())


class StrictRoute(APIRoute):
    """A route whose body is read so, and not before its caller is known where it needs a key."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        needs_key = any(each.call is authenticate for each in self.dependant.dependencies)

        async def strictly(request: Request) -> Response:
            if needs_key:
                # FastAPI parses a body before it asks dependencies, this one too.
                await authenticate_early(request)
            return await handle(_StrictRequest(request.scope, request.receive))

        return strictly


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
