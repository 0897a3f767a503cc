"""The asyncio client."""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Mapping,
)
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from stepback_client import environment
from stepback_client.connection import DEFAULT_TIMEOUT, DEFAULT_URL, Connection
from stepback_client.errors import StepbackError, no_answer
from stepback_client.events import aread_events
from stepback_client.pools import PoolOfEachLoop
from stepback_client.request import Problem, SolveOptions, seconds_of, solve_body
from stepback_client.response import checked, read, read_readiness
from stepback_client.retry import AttemptResult, Retry, attempts, looks
from stepback_core.events import ProgressEvent
from stepback_core.schemas import ModelList, Readiness, Reload, SolveResult, Version

T = TypeVar("T")
R = TypeVar("R")


class AsyncClient:
    """Talks to one controller; an async context manager. Safe to share between tasks and event
    loops, to keep over a fork (each loop and each process has connections of its own), and to
    pickle.

    Its arguments are those of `Client`. `close` closes the connections of the running loop; those
    of another one close when that loop ends.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | httpx.Timeout | None = DEFAULT_TIMEOUT,
        retry: Retry | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._connection = Connection.to(url, api_key=api_key, headers=headers, timeout=timeout)
        self._retry = retry or Retry()
        self._transport = transport
        self._pools = PoolOfEachLoop(self._open)

    @classmethod
    def from_environment(cls, url: str | None = None, *, retry: Retry | None = None) -> Self:
        """A client with the caller's own STEPBACK_URL, STEPBACK_API_KEY and STEPBACK_HEADERS."""
        return cls(
            url or environment.server_url(),
            api_key=environment.api_key(),
            headers=environment.own_headers(),
            retry=retry,
        )

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_pools"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._pools = PoolOfEachLoop(self._open)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection of the running loop."""
        await self._pools.close()

    async def solve(self, problem: Problem = None, **options: Unpack[SolveOptions]) -> SolveResult:
        """Search for the answer to a task's problem, or to a prompt.

        An unsolved problem is a result, not an error. Raises StepbackError, and pydantic's
        ValidationError for arguments that are refused unsent.
        """
        body = solve_body(problem, options)
        timeout = self._connection.timeout_for(seconds_of(body))
        return read(await self._send("POST", "/solve", body, patience=timeout), SolveResult)

    @asynccontextmanager
    async def stream(
        self, problem: Problem = None, **options: Unpack[SolveOptions]
    ) -> AsyncGenerator[AsyncIterator[ProgressEvent]]:
        """The same search while it runs: the events in order, the result last.

        Leaving the context before the end ends the search. Raises what `solve` raises; once the
        first event has come nothing is tried again.
        """
        body = solve_body(problem, options, stream=True)
        timeout = self._connection.timeout_for(seconds_of(body), stream=True)
        response = await self._send("POST", "/solve", body, stream=True, patience=timeout)
        try:
            async with aclosing(aread_events(checked(response))) as events:
                yield events
        finally:
            await response.aclose()

    async def ready(self) -> Readiness:
        """Ask for the server's readiness to take a search now; never tries again."""
        http = await self._pools.get()
        try:
            response = await http.get("/ready", timeout=self._connection.timeout_at_once)
        except httpx.HTTPError as error:
            raise no_answer("GET", "/ready", error) from error
        return read_readiness(response)

    async def wait_until_ready(self, seconds: float = 300.0) -> Readiness:
        """Wait for a server that starts, or loads its engine, to take searches.

        Raises StepbackError where it does not within `seconds`, or refuses to say.
        """
        return await _follow(looks(seconds), self._look)

    async def _look(self) -> Readiness | StepbackError:
        try:
            return await self.ready()
        except StepbackError as error:
            return error

    async def version(self) -> Version:
        """Ask for the versions that run there, and the served weights' digest."""
        return read(await self._get("/version"), Version)

    async def models(self) -> ModelList:
        """Ask for the served models and their tasks."""
        return read(await self._get("/v1/models"), ModelList)

    async def reload(self, model: str, path: str) -> Reload:
        """Have new weights of a model loaded from a folder of the server's, which must allow it.

        The same weights again are not loaded twice. Raises StepbackError."""
        return read(await self._send("POST", f"/v1/models/{model}/reload", {"path": path}), Reload)

    async def _get(self, path: str) -> httpx.Response:
        return await self._send("GET", path, patience=self._connection.timeout_at_once)

    async def _send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        stream: bool = False,
        patience: httpx.Timeout | None = None,
    ) -> httpx.Response:
        """The answer, tried again as `Retry` says; with `stream`, a success is not read yet."""
        # A second try that joined a streamed search would get its result alone.
        headers = self._retry.call_headers() if method == "POST" and not stream else None
        http = await self._pools.get()
        request = http.build_request(
            method, path, json=body, headers=headers, timeout=patience or self._connection.timeout
        )
        flow = attempts(self._retry, method, path)
        return await _follow(flow, lambda: self._try(http, request, stream=stream))

    async def _try(
        self, http: httpx.AsyncClient, request: httpx.Request, *, stream: bool
    ) -> AttemptResult:
        """Send the request once. An error's body is read whole: one that breaks off is no
        answer."""
        response = None
        try:
            response = await http.send(request, stream=stream)
            if not response.is_success:
                await response.aread()
        except httpx.HTTPError as error:
            if response is not None:
                await response.aclose()
            return error
        return response

    def _open(self) -> httpx.AsyncClient:
        transport = self._transport or self._connection.transport(httpx.AsyncHTTPTransport)
        return httpx.AsyncClient(**self._connection.options(), transport=transport)


async def _follow(flow: Generator[float, T, R], take: Callable[[], Awaitable[T]]) -> R:
    """The end of a flow that yields the seconds to wait before what it is sent."""
    wait = next(flow)
    while True:
        await asyncio.sleep(wait)
        try:
            wait = flow.send(await take())
        except StopIteration as end:
            return end.value
