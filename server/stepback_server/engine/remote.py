"""One vLLM server over HTTP: the engine seam in its OpenAI-compatible API, in token ids."""

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import aiohttp
import httpx
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import BaseModel

from stepback_server.concurrency import Alarm, Interrupted
from stepback_server.engine.aborts import Aborts
from stepback_server.engine.base import (
    EngineUnavailable,
    Finish,
    OnSample,
    PromptRefused,
    ReloadFailed,
    ReloadNotOffered,
    SampleRequest,
)
from stepback_server.engine.completions import (
    PATH,
    Lines,
    Stream,
    request_body,
)
from stepback_server.engine.handshake import (
    CONTROL_SECONDS,
    ExpectedServer,
    say,
    trusted_authorities,
)
from stepback_server.engine.prefix_cache import forget_prefixes
from stepback_server.request_context import trace_headers

_ABORT_CONNECTIONS = 8
# Below the server's 5 s, or a request may meet a connection that is just being closed.
_KEEP_ALIVE_SECONDS = 2.0
# As long as the supervisor's own deadline for it.
_RELOAD_SECONDS = 600.0
# Path that only vLLM's development mode has; so has the next.
_RPC_PATH = "/collective_rpc"
_FORGET_PATH = "/reset_prefix_cache"
# The prompt's fault: another server would say the same.
_REFUSED = (400, 413, 422)
# Answers of a router or a full server, which sampled nothing.
_NOT_TAKEN = (404, 429)
_NOT_CONNECTED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


class RemoteEngine:
    """The engine seam over one vLLM server. Make it with `connect`."""

    def __init__(self, url: str, expected: ExpectedServer, version: str = "unknown") -> None:
        self.url = url
        self.version = version
        self._model = expected.model
        self._expected = expected
        # Aborts go by name, and controllers may share a server.
        self._names_begin, self._numbers = uuid.uuid4().hex, itertools.count()
        # Apart, so that a check never waits for a place among the samples.
        self._control = httpx.AsyncClient(
            base_url=url,
            headers=expected.headers,
            timeout=CONTROL_SECONDS,
            limits=httpx.Limits(keepalive_expiry=_KEEP_ALIVE_SECONDS),
            trust_env=False,
            verify=trusted_authorities(url),
        )

    @classmethod
    def connect(cls, url: str, expected: ExpectedServer) -> "RemoteEngine":
        """Ask a server what it serves, and what it is; blocks, for seconds at most.

        Raises EngineUnavailable where there is no server yet, EngineError where it is another
        one than expected.
        """
        return cls(url, expected, expected.check_server(url))

    @cached_property
    def _sampling(self) -> aiohttp.ClientSession:
        """Made within the event loop. Not httpx: with a hundred connections its pool, which looks
        at each of them for every request, costs more than everything else that a search does."""
        return self._session(self._expected.connections)

    @cached_property
    def _aborts(self) -> Aborts:
        # Apart too: an abort must not wait for what it is to end.
        return Aborts(self._session(_ABORT_CONNECTIONS), self.url)

    def _session(self, connections: int) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            headers=self._expected.headers,
            connector=aiohttp.TCPConnector(
                limit=connections,
                keepalive_timeout=_KEEP_ALIVE_SECONDS,
                ssl=trusted_authorities(self.url),
            ),
            # A router's cookie would hold every search on one of its servers.
            cookie_jar=aiohttp.DummyCookieJar(),
            # A continuation may take as long as it takes; who watches the server notices a hang.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONTROL_SECONDS),
        )

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        # A search that is over already sends nothing, and owes nothing.
        name, stream, was_sent = self._next_name(), Stream(request), not stop.is_set()
        if was_sent:
            body = request_body(request, model=self._model, name=name)
            in_vain = Alarm()
            watcher = asyncio.create_task(self._abort_on(stop, name, in_vain))
            try:
                # Where the abort by name was in vain the connection is dropped: vLLM aborts then as
                # well.
                with suppress(Interrupted):
                    async with in_vain.interrupts():
                        await self._read(body, stream, stop, deliver)
            finally:
                watcher.cancel()
        for sample in stream.give_up(was_sent=was_sent):
            deliver(sample)

    async def _read(
        self, body: bytes, stream: Stream, stop: asyncio.Event, deliver: OnSample
    ) -> None:
        try:
            async with self._sampling.post(
                f"{self.url}{PATH}",
                data=body,
                headers={"Content-Type": "application/json", **trace_headers()},
                allow_redirects=False,
            ) as answer:
                await self._refuse(answer)
                async for line in _lines(answer):
                    for sample in stream.feed(line):
                        # Nobody here asked for it: the server is shutting down, say, and another
                        # can do the work.
                        if sample.finish is Finish.ABORTED and not stop.is_set():
                            raise EngineUnavailable(f"{self.url} has aborted a request")
                        deliver(sample)
        except _NOT_CONNECTED as error:
            text = f"{self.url} cannot be reached ({say(error)})"
            raise EngineUnavailable(text, begun=False) from error
        except aiohttp.ClientPayloadError as error:
            raise EngineUnavailable(f"{self.url}: {error}") from error
        except (aiohttp.ClientError, HttpProcessingError) as error:
            raise EngineUnavailable(f"{self.url} was lost ({say(error)})") from error
        if not stream.is_complete:
            raise EngineUnavailable(f"{self.url} ended an answer early")

    def _next_name(self) -> str:
        """A request's, which no other controller gives to one of its own."""
        return f"{self._names_begin}-{next(self._numbers)}"

    async def _refuse(self, answer: aiohttp.ClientResponse) -> None:
        if answer.status == 200:
            return
        body = await answer.read()
        message = _message(body)
        if answer.status in _REFUSED:
            raise PromptRefused(message)
        # vLLM answers 200 before it samples; but a proxy may have lost an answer that had begun.
        never_begun = answer.status in _NOT_TAKEN or _said(body) is not None
        text = f"{self.url} answers {answer.status}: {message}"
        raise EngineUnavailable(text, begun=not never_begun)

    async def _abort_on(self, stop: asyncio.Event, name: str, in_vain: Alarm) -> None:
        """Once `stop` is set, abort a request by its name, so that its stream ends."""
        await stop.wait()
        try:
            await self._aborts.abort(name)
        finally:
            in_vain.ring()

    async def running(self) -> int:
        return await self._metrics("vllm:num_requests_running{", "vllm:num_requests_waiting{")

    async def progress(self) -> int:
        # Tokens of all controllers together: an engine that works for others does not hang.
        return await self._metrics("vllm:generation_tokens_total{")

    async def _metrics(self, *names: str) -> int:
        """The sum of some of vLLM's own metrics."""
        lines = (await self._get("/metrics")).text.splitlines()
        try:
            return sum(
                round(float(each.rpartition(" ")[2])) for each in lines if each.startswith(names)
            )
        except (ValueError, OverflowError) as error:
            raise EngineUnavailable(f"{self.url}/metrics cannot be read ({error})") from error

    async def check(self) -> None:
        await self._get("/health")

    async def _get(self, path: str) -> httpx.Response:
        try:
            answer = await self._control.get(path)
        except httpx.RequestError as error:
            raise EngineUnavailable(f"{self.url} cannot be reached ({say(error)})") from error
        if answer.status_code != 200:
            raise EngineUnavailable(f"{self.url} answers {answer.status_code} to GET {path}")
        return answer

    async def reload(self, checkpoint: Path) -> bool:
        """`checkpoint` must be where the server finds it under the same path."""
        # A client of its own: it waits for longer, and a thread without our loop may ask too.
        async with httpx.AsyncClient(
            base_url=self.url,
            headers=self._expected.headers,
            timeout=httpx.Timeout(_RELOAD_SECONDS, connect=CONTROL_SECONDS),
            trust_env=False,
            verify=trusted_authorities(self.url),
        ) as http:
            try:
                # GET on a path for POST is 405 where it exists, and changes nothing.
                if (await http.get(_RPC_PATH)).status_code == 404:
                    raise ReloadNotOffered(f"{self.url} has no {_RPC_PATH}")
                # As in embedded.py: vLLM does not say whether the weights differ now.
                before = await self._call(http, "compute_weight_checksums")
                await self._call(http, "reload_weights", weights_path=str(checkpoint))
                after = await self._call(http, "compute_weight_checksums")
                await forget_prefixes(self.url, lambda: _reset_prefixes(http))
            except httpx.RequestError as error:
                raise EngineUnavailable(f"{self.url} was lost ({say(error)})") from error
        return before != after

    async def _call(self, http: httpx.AsyncClient, method: str, **arguments: str) -> bytes:
        answer = await http.post(_RPC_PATH, json={"method": method, "kwargs": arguments})
        if answer.status_code != 200:
            raise ReloadFailed(f"{self.url} fails at {method}: {_message(answer.content)}")
        return answer.content

    async def close(self, *, kill: bool) -> None:
        """Close the connections; the server is not ours to stop."""
        await self._sampling.close()
        await self._aborts.close()
        await self._control.aclose()


async def _reset_prefixes(http: httpx.AsyncClient) -> bool:
    answer = await http.post(_FORGET_PATH)
    return answer.status_code == 200 and bool(answer.json().get("success"))


async def _lines(answer: aiohttp.ClientResponse) -> AsyncIterator[str]:
    """Raises aiohttp.ClientPayloadError."""
    lines = Lines()
    async for data in answer.content.iter_any():
        for line in lines.cut(data):
            yield line
    for line in lines.cut(b"\n"):  # whatever has no end
        yield line


class _Error(BaseModel):
    message: str


class _ErrorBody(BaseModel):
    error: _Error


def _said(body: bytes) -> str | None:
    """Return the message of vLLM's error body; None if the body is another."""
    try:
        return _ErrorBody.model_validate_json(body).error.message
    except ValueError:
        return None


def _message(body: bytes) -> str:
    """Return the message of vLLM's error body, or the beginning of another body."""
    return _said(body) or " ".join(body.decode(errors="replace")[:200].split())
