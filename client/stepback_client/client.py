"""The blocking client."""

import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from types import TracebackType
from typing import Self, Unpack

import httpx

from stepback_client.base import (
    DEFAULT_TIMEOUT,
    DEFAULT_URL,
    LIMITS,
    LOST,
    Problem,
    Retry,
    SolveOptions,
    checked,
    key_headers,
    no_answer,
    read,
    read_readiness,
    solve_body,
)
from stepback_client.events import read_events
from stepback_core.events import ProgressEvent
from stepback_core.schemas import ModelList, Readiness, Reload, SolveResult, Version


class Client:
    """Talks to one controller; a context manager. Safe to share between threads.

    `api_key` is what the server's operator gave you; an open server needs none. `timeout` is in
    seconds, or httpx's own. `transport` replaces the network, for tests.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout: float | httpx.Timeout = DEFAULT_TIMEOUT,
        retry: Retry | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._retry = retry or Retry()
        self._http = httpx.Client(
            base_url=url,
            headers=key_headers(api_key),
            timeout=timeout,
            limits=LIMITS,
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def solve(self, problem: Problem = None, **options: Unpack[SolveOptions]) -> SolveResult:
        """Search for the answer to a task's problem, or to a prompt.

        An unsolved problem is a result, not an error. Raises StepbackError, and pydantic's
        ValidationError for arguments that are refused unsent.
        """
        body = solve_body(problem, options)
        return read(self._send("POST", "/solve", body), SolveResult)

    @contextmanager
    def stream(
        self, problem: Problem = None, **options: Unpack[SolveOptions]
    ) -> Generator[Iterator[ProgressEvent]]:
        """The same search, told while it runs: the events in order, the result last.

        Leaving the context before the end ends the search. Raises what `solve` raises; once the
        first event has come nothing is tried again.
        """
        body = solve_body(problem, options, stream=True)
        response = self._send("POST", "/solve", body, stream=True)
        with closing(response), closing(read_events(checked(response))) as events:
            yield events

    def ready(self) -> Readiness:
        """Whether the server would take a search now; never tries again."""
        try:
            response = self._http.get("/ready")
        except httpx.HTTPError as error:
            raise no_answer("GET", "/ready", error) from error
        return read_readiness(response)

    def version(self) -> Version:
        return read(self._send("GET", "/version"), Version)

    def models(self) -> ModelList:
        return read(self._send("GET", "/v1/models"), ModelList)

    def reload(self, model: str, path: str) -> Reload:
        """Have new weights of a model loaded from a folder of the server's, which must allow it.

        The same weights again are not loaded twice. Raises StepbackError."""
        return read(self._send("POST", f"/v1/models/{model}/reload", {"path": path}), Reload)

    def _send(
        self, method: str, path: str, body: object = None, *, stream: bool = False
    ) -> httpx.Response:
        """The answer, tried again as `Retry` says; with `stream`, a success is not read yet."""
        # A second try that joined a streamed search would be told its result alone.
        headers = self._retry.call_headers() if method == "POST" and not stream else None
        request = self._http.build_request(method, path, json=body, headers=headers)
        tried = 0
        while True:
            tried += 1
            response, failure = None, None
            try:
                response = self._try(request, stream=stream)
            except LOST as error:
                failure = error
            except httpx.HTTPError as error:
                raise no_answer(method, path, error) from error
            wait = self._retry.wait(tried, response)
            if wait is None:
                if response is None:
                    raise no_answer(method, path, failure) from failure
                return response
            time.sleep(wait)

    def _try(self, request: httpx.Request, *, stream: bool) -> httpx.Response:
        """One answer, read whole if it is an error: one that breaks off is no answer."""
        response = self._http.send(request, stream=stream)
        if not response.is_success:
            try:
                response.read()
            except httpx.HTTPError:
                response.close()
                raise
        return response
