"""Handshake with a vLLM server: it must serve the expected model."""

import functools
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
from pydantic import BaseModel

from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import EngineError, EngineUnavailable
from stepback_server.settings import Settings

_log = logging.getLogger(__name__)

CONTROL_SECONDS = 5.0
"""Timeout of connecting, and of every call that a healthy server answers at once."""


class _Version(BaseModel):
    version: str


class _Model(BaseModel):
    id: str
    max_model_len: int | None = None


class _Models(BaseModel):
    data: list[_Model]


_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"


def trusted_authorities(url: str) -> ssl.SSLContext:
    """Return the authorities of SSL_CERT_FILE and SSL_CERT_DIR, else of the web. Proxies of the
    environment do not count: an engine is next door.

    Raises OSError that names the variables. An address without TLS needs none of them.
    """
    return _authorities() if url.startswith("https:") else _nobody()


@functools.cache
def _authorities() -> ssl.SSLContext:
    # Cached: reading the authorities took 50 ms here, and every client needs them.
    try:
        return httpx.create_ssl_context()
    except OSError as error:
        raise OSError(f"SSL_CERT_FILE, SSL_CERT_DIR: {error}") from error


@functools.cache
def _nobody() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedServer:
    """The model and settings that every server must have."""

    model: str
    context_tokens: int
    # Not in a log by way of a repr.
    api_key: str | None = field(repr=False)
    """Sent as a bearer token, where the servers want one."""
    connections: int
    """Requests to one server at once; more wait here."""
    shorten: Callable[[int], None] | None = None
    """Called with the context of a server that has a shorter one; None refuses such a server."""

    @classmethod
    def of(cls, checkpoint: Checkpoint, settings: Settings) -> "ExpectedServer":
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

    def check_server(self, url: str) -> str:
        """vLLM's version at a server that serves this; "unknown" where it does not tell.

        Blocks. Raises EngineUnavailable where there is no server, EngineError where it is
        another one.
        """
        answer = self._ask(f"{url}/v1/models")
        # Not EngineUnavailable: waiting does not make a wrong key right.
        if answer.status_code in (401, 403):
            raise EngineError(f"{url} refuses the key: set STEPBACK_ENGINE_API_KEY to its own")
        if answer.status_code != 200:
            raise EngineUnavailable(f"{url} answers {answer.status_code} to GET /v1/models")
        self._agree(url, answer)
        try:
            return _Version.model_validate_json(self._ask(f"{url}/version").content).version
        except ValueError:  # something before it does not let it
            return "unknown"

    def _ask(self, address: str) -> httpx.Response:
        try:
            return httpx.get(
                address,
                headers=self.headers,
                timeout=CONTROL_SECONDS,
                trust_env=False,
                verify=trusted_authorities(address),
            )
        except OSError as error:
            raise EngineError(f"{address}: {error}") from error
        except httpx.RequestError as error:
            # httpx has no class for it, and a connection that will never be trusted must not be
            # awaited.
            if _UNTRUSTED in str(error):
                raise EngineError(
                    f"{address}: its certificate is not trusted ({say(error)}): name the file of "
                    "its authority with SSL_CERT_FILE"
                ) from error
            raise EngineUnavailable(f"{address} cannot be reached ({say(error)})") from error

    def _agree(self, url: str, answer: httpx.Response) -> None:
        try:
            models = _Models.model_validate_json(answer.content).data
        except ValueError as error:
            raise EngineError(f"{url} is no vLLM server: {answer.text[:100]}") from error
        served = next((model for model in models if model.id == self.model), None)
        if served is None:
            raise EngineError(
                f"{url} serves {', '.join(model.id for model in models)}, not {self.model}: start "
                f"it with `stepback engine`, or with --served-model-name {self.model}"
            )
        if served.max_model_len is None:
            _log.warning("%s does not tell its context: it must be %d", url, self.context_tokens)
        # A longer one is fine: this controller sends no more than its own.
        elif served.max_model_len < self.context_tokens:
            if self.shorten is not None:
                self.shorten(served.max_model_len)
                return
            raise EngineError(
                f"{url} has a context of {served.max_model_len} tokens, this controller one of "
                f"{self.context_tokens}: start it with --max-model-len {self.context_tokens}, or "
                f"this with STEPBACK_CONTEXT_TOKENS={served.max_model_len}"
            )


def say(error: Exception) -> str:
    """Return an error's text, or its type where it has none."""
    return str(error) or type(error).__name__
