"""A real HTTP server of one route, in a thread: what scorers are tested against."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.asgi import listening

Reply = Callable[[dict[str, Any]], Response | dict[str, Any] | Awaitable[Response]]


@dataclass(slots=True)
class Service:
    """Keeps what it was asked, and replies as `reply` says at that moment."""

    reply: Reply
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    headers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    async def answer(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        replied = self.reply(body)
        if isinstance(replied, dict):
            return JSONResponse(replied)
        return replied if isinstance(replied, Response) else await replied


@contextmanager
def serving(reply: Reply, path: str = "/score") -> Iterator[Service]:
    """Serve until the end of the context."""
    service = Service(reply)
    app = Starlette(routes=[Route(path, service.answer, methods=["POST"])])
    config = uvicorn.Config(app, log_level="critical", lifespan="off")
    # Also what a test has left waiting ends.
    with listening(config, force_exit=True) as port:
        service.url = f"http://127.0.0.1:{port}{path}"
        yield service


def judged(score: Callable[[dict[str, Any]], float], **fields: Any) -> Reply:
    """Reply with a score for each candidate."""

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        verdicts = [
            {"id": each["id"], "score": score(each)} | fields for each in body["candidates"]
        ]
        return {"verdicts": verdicts}

    return reply
