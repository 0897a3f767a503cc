"""One vLLM server over HTTP: the engine seam in its OpenAI-compatible API, in token ids."""

import asyncio
import logging
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import aiohttp
import httpx
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import BaseModel

from stepback_server.checkpoint import Checkpoint
from stepback_server.concurrency import Alarm, Interrupted
from stepback_server.engine.aborts import Aborts
from stepback_server.engine.base import (
    EngineMismatch,
    EngineUnavailable,
    Finish,
    NeverBegun,
    OnSample,
    PromptRefused,
    ReloadFailed,
    ReloadNotOffered,
    SampleRequest,
)
from stepback_server.engine.completions import (
    PATH,
    AnswerError,
    Stream,
    request_body,
)
from stepback_server.observation.request import trace_headers
from stepback_server.settings import Settings

_log = logging.getLogger(__name__)

_CONTROL_SECONDS = 5.0
"""For connecting, and for everything that a healthy server answers at once."""
_ABORT_CONNECTIONS = 8
_KEEP_ALIVE_SECONDS = 2.0
"""Below the server's 5 s, or a request may meet a connection that is just being closed."""
_RELOAD_SECONDS = 600.0
_RPC_PATH = "/collective_rpc"
"""Of vLLM's development mode alone, as is the next."""
_FORGET_PATH = "/reset_prefix_cache"
_RESETS = 100
_BETWEEN_RESETS = 0.02
_LONGEST_LINE = 1 << 24
"""Bytes of one chunk of a stream: a whole continuation, with its log-probabilities."""
_REFUSED = (400, 413, 422)
_NOT_TAKEN = (404, 429)
_NOT_CONNECTED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What every server must serve."""

    model: str
    context_tokens: int
    api_key: str | None = field(repr=False)
    """Sent as a bearer token, where the servers want one."""
    connections: int
    """Requests to one server at once; more wait here."""

    @classmethod
    def of(cls, checkpoint: Checkpoint, settings: Settings) -> "Expected":
        key = settings.engine_api_key
        return cls(
            model=checkpoint.manifest.name,
            context_tokens=checkpoint.context_tokens,
            api_key=key.get_secret_value() if key else None,
            connections=settings.max_running,
        )

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key}"}


class Replica:
    """The engine seam over one vLLM server. Make it with `connect`."""

    def __init__(self, url: str, expected: Expected, version: str = "unknown") -> None:
        self.url = url
        self.version = version
        self._model = expected.model
        self._expected = expected
        # Apart, so that a check never waits for a place among the samples.
        self._control = httpx.AsyncClient(
            base_url=url,
            headers=expected.headers,
            timeout=_CONTROL_SECONDS,
            limits=httpx.Limits(keepalive_expiry=_KEEP_ALIVE_SECONDS),
            trust_env=False,
        )

    @classmethod
    def connect(cls, url: str, expected: Expected) -> "Replica":
        """Ask a server what it serves, and what it is; blocks, for seconds at most.

        Raises EngineUnavailable where there is no server yet, EngineMismatch where it is another
        one than expected.
        """
        answer = _ask(f"{url}/v1/models", expected)
        if answer.status_code in (401, 403):
            raise EngineMismatch(f"{url} refuses the key: set STEPBACK_ENGINE_API_KEY to its own")
        if answer.status_code != 200:
            raise EngineUnavailable(f"{url} answers {answer.status_code} to GET /v1/models")
        _agree(url, answer, expected)
        return cls(url, expected, _version(_ask(f"{url}/version", expected)))

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
                limit=connections, keepalive_timeout=_KEEP_ALIVE_SECONDS
            ),
            # A router's cookie would hold every search on one of its servers.
            cookie_jar=aiohttp.DummyCookieJar(),
            # A continuation may take as long as it takes; who watches the server notices a hang.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONTROL_SECONDS),
            read_bufsize=_LONGEST_LINE,
        )

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        name, stream, was_sent = uuid.uuid4().hex, Stream(request), not stop.is_set()
        if was_sent:
            body = request_body(request, model=self._model, name=name)
            in_vain = Alarm()
            watcher = asyncio.create_task(self._abort_on(stop, name, in_vain))
            try:
                with suppress(Interrupted):
                    async with in_vain.interrupts():
                        await self._read(body, stream, stop, deliver)
            finally:
                watcher.cancel()
        for sample in stream.give_up(was_sent=was_sent):
            deliver(sample)

    async def _read(
        self, body: dict[str, Any], stream: Stream, stop: asyncio.Event, deliver: OnSample
    ) -> None:
        try:
            async with self._sampling.post(
                f"{self.url}{PATH}", json=body, headers=trace_headers(), allow_redirects=False
            ) as answer:
                await self._refuse(answer)
                while line := await _read_line(answer):
                    for sample in stream.feed(line.rstrip()):
                        if sample.finish is Finish.ABORTED and not stop.is_set():
                            raise EngineUnavailable(f"{self.url} has aborted a request")
                        deliver(sample)
        except _NOT_CONNECTED as error:
            raise NeverBegun(f"{self.url} cannot be reached ({_say(error)})") from error
        except aiohttp.ClientError as error:
            raise EngineUnavailable(f"{self.url} was lost ({_say(error)})") from error
        except AnswerError as error:
            raise EngineUnavailable(f"{self.url}: {error}") from error
        if not stream.is_complete:
            raise EngineUnavailable(f"{self.url} ended an answer early")

    async def _refuse(self, answer: aiohttp.ClientResponse) -> None:
        if answer.status == 200:
            return
        body = await answer.read()
        message = _message(body)
        if answer.status in _REFUSED:
            raise PromptRefused(message)
        # vLLM answers 200 before it samples; but a proxy may have lost an answer that had begun.
        never_begun = answer.status in _NOT_TAKEN or _said(body) is not None
        lost = NeverBegun if never_begun else EngineUnavailable
        raise lost(f"{self.url} answers {answer.status}: {message}")

    async def _abort_on(self, stop: asyncio.Event, name: str, in_vain: Alarm) -> None:
        """Once `stop` is set, abort a request by its name, so that its stream ends."""
        await stop.wait()
        await self._aborts.abort(name)
        in_vain.ring()

    async def running(self) -> int:
        return await self._metrics("vllm:num_requests_running{", "vllm:num_requests_waiting{")

    async def progress(self) -> int:
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
            raise EngineUnavailable(f"{self.url} cannot be reached ({_say(error)})") from error
        if answer.status_code != 200:
            raise EngineUnavailable(f"{self.url} answers {answer.status_code} to GET {path}")
        return answer

    async def reload(self, checkpoint: Path) -> bool:
        """`checkpoint` must be where the server finds it under the same path."""
        # A client of its own: it waits for longer, and a thread without our loop may ask too.
        async with httpx.AsyncClient(
            base_url=self.url,
            headers=self._expected.headers,
            timeout=httpx.Timeout(_RELOAD_SECONDS, connect=_CONTROL_SECONDS),
            trust_env=False,
        ) as http:
            try:
                if (await http.get(_RPC_PATH)).status_code == 404:
                    raise ReloadNotOffered(f"{self.url} has no {_RPC_PATH}")
                before = await self._call(http, "compute_weight_checksums")
                await self._call(http, "reload_weights", weights_path=str(checkpoint))
                after = await self._call(http, "compute_weight_checksums")
                await self._forget_prefixes(http)
            except httpx.RequestError as error:
                raise EngineUnavailable(f"{self.url} was lost ({_say(error)})") from error
        return before != after

    async def _call(self, http: httpx.AsyncClient, method: str, **arguments: str) -> bytes:
        answer = await http.post(_RPC_PATH, json={"method": method, "kwargs": arguments})
        if answer.status_code != 200:
            raise ReloadFailed(f"{self.url} fails at {method}: {_message(answer.content)}")
        return answer.content

    async def _forget_prefixes(self, http: httpx.AsyncClient) -> None:
        """vLLM refuses while a sequence holds a block, as one just aborted may for a moment."""
        for _ in range(_RESETS):
            answer = await http.post(_FORGET_PATH)
            if answer.status_code == 200 and answer.json().get("success"):
                return
            await asyncio.sleep(_BETWEEN_RESETS)
        raise ReloadFailed(f"{self.url} does not forget what it cached of the old weights")

    async def close(self, *, kill: bool) -> None:
        """Close the connections; the server is not ours to stop."""
        await self._sampling.close()
        await self._aborts.close()
        await self._control.aclose()


class _Version(BaseModel):
    version: str


class _Error(BaseModel):
    message: str


class _ErrorBody(BaseModel):
    error: _Error


class _Model(BaseModel):
    id: str
    max_model_len: int | None = None


class _Models(BaseModel):
    data: list[_Model]


def _ask(address: str, expected: Expected) -> httpx.Response:
    try:
        return httpx.get(
            address, headers=expected.headers, timeout=_CONTROL_SECONDS, trust_env=False
        )
    except httpx.RequestError as error:
        raise EngineUnavailable(f"{address} cannot be reached ({_say(error)})") from error


def _version(answer: httpx.Response) -> str:
    """vLLM's version; "unknown" where something before it does not let it tell."""
    try:
        return _Version.model_validate_json(answer.content).version
    except ValueError:
        return "unknown"


def _agree(url: str, answer: httpx.Response, expected: Expected) -> None:
    try:
        models = _Models.model_validate_json(answer.content).data
    except ValueError as error:
        raise EngineMismatch(f"{url} is no vLLM server: {answer.text[:100]}") from error
    served = next((model for model in models if model.id == expected.model), None)
    if served is None:
        raise EngineMismatch(
            f"{url} serves {', '.join(model.id for model in models)}, not {expected.model}: start "
            f"it with `stepback engine`, or with --served-model-name {expected.model}"
        )
    if served.max_model_len is None:
        _log.warning("%s does not tell its context: it must be %d", url, expected.context_tokens)
    elif served.max_model_len < expected.context_tokens:
        raise EngineMismatch(
            f"{url} has a context of {served.max_model_len} tokens, the checkpoint one of "
            f"{expected.context_tokens}: start it with --max-model-len {expected.context_tokens}"
        )


async def _read_line(answer: aiohttp.ClientResponse) -> str:
    """The next line with its end, "" behind the last. Raises AnswerError."""
    try:
        return (await answer.content.readline()).decode()
    except (ValueError, HttpProcessingError) as error:  # no text; too long
        raise AnswerError(f"its answer has a line that cannot be read ({error})") from error


def _said(body: bytes) -> str | None:
    """What vLLM says in its error body; None where it is none of vLLM's."""
    try:
        return _ErrorBody.model_validate_json(body).error.message
    except ValueError:
        return None


def _message(body: bytes) -> str:
    """What vLLM says in its error body, or the beginning of a body that is none."""
    return _said(body) or " ".join(body.decode(errors="replace")[:200].split())


def _say(error: Exception) -> str:
    return str(error) or type(error).__name__
