"""Places where many problems are searched for: a server, this process, a Ray cluster."""

import importlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stepback_client.async_client import AsyncClient
from stepback_client.batch.scheduler import PATIENCE, finished
from stepback_client.environment import api_key, own_headers
from stepback_client.errors import ApiError, Overloaded, TransportError
from stepback_core.schemas import SolveRequest
from stepback_core.validation import first_error

Answer = dict[str, Any]
"""The `result` or the `error` of one body."""
_OF_THE_BODY = frozenset({"internal", "checker_failed"})
"""Errors of 500 and more that one body may cause each time: no reason to stop at it."""
_OF_THE_ADDRESS = frozenset({"no_such_path", "method_not_allowed"})
_TOO_LARGE = 413
"""Status of a body that is too large, also for a proxy on the way."""
Solve = Callable[[dict[str, Any]], Awaitable[Answer]]


@asynccontextmanager
async def over_http(url: str) -> AsyncGenerator[Solve]:
    """Search at a server. A body that it refuses has an error; trouble of the server's raises, and
    so does an answer that no Stepback server gives there."""
    is_ours = False
    async with AsyncClient(url, api_key=api_key(), headers=own_headers(), retry=PATIENCE) as client:

        async def solve(body: dict[str, Any]) -> Answer:
            nonlocal is_ours
            try:
                result = finished(await client.solve(**_arguments(body)))
                is_ours = True
            except ValidationError as error:
                return _refused(422, first_error(error, whole="the request"))
            except Overloaded:
                raise
            except ApiError as error:
                # A proxy may refuse one body of many, without a word of ours.
                if not is_ours and _is_of_the_address(error):
                    said = f"{url} answers {error.status} to POST /solve"
                    raise TransportError(f"{said}: is it a Stepback server's address?") from error
                is_ours = is_ours or error.detail is not None
                if error.code not in _OF_THE_BODY and (error.status >= 500 or error.status == 401):
                    raise
                return _refused(error.status, str(error))
            return {"result": result.model_dump(mode="json")}

        yield solve


def _is_of_the_address(error: ApiError) -> bool:
    """True where the server would answer every body so."""
    if error.status >= 500:  # A gateway's, whose server may come back: see what follows.
        return False
    no_body_of_ours = error.detail is None and error.status != _TOO_LARGE
    return no_body_of_ours or error.code in _OF_THE_ADDRESS


@asynccontextmanager
async def in_process(model: Path, in_flight: int) -> AsyncGenerator[Solve]:
    """Search with an engine of this process's own. Raises ModuleNotFoundError and InvalidInput."""
    # Named, not imported: the client alone is a whole install.
    local = importlib.import_module("stepback_server.local")
    async with local.opened(model, in_flight=in_flight) as solver:
        yield _as_lines(solver.answer)


@asynccontextmanager
async def on_ray(model: Path, actors: int, in_flight: int) -> AsyncGenerator[Solve]:
    """Search on the cluster of RAY_ADDRESS, or on a local one, with a folder that every node has.
    Raises ModuleNotFoundError, InvalidInput and OSError."""
    ray = importlib.import_module("stepback_server.on_ray")
    async with ray.pooled(model, actors=actors, in_flight=in_flight) as pool:
        yield _as_lines(pool.answer)


def _as_lines(ask: Callable[[dict[str, Any]], Awaitable[tuple[int, dict[str, Any]]]]) -> Solve:
    async def solve(body: dict[str, Any]) -> Answer:
        status, answer = await ask(body)
        if status >= 400:
            return _refused(status, answer["error"]["message"])
        return {"result": answer}

    return solve


def _arguments(body: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `AsyncClient.solve` that send this body. Raises ValidationError."""
    SolveRequest.model_validate(body)
    return {name: value for name, value in body.items() if name not in ("stream", "background")}


def _refused(status: int, message: str) -> Answer:
    return {"error": {"status": status, "message": message}}
