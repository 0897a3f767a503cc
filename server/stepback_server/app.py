"""The application: the one place where settings, checkpoint, engine and routes meet."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI

from stepback_server.api.errors import install_error_handlers
from stepback_server.api.limits import BodyLimit, BrokenConnections
from stepback_server.api.routes import router
from stepback_server.api.schema import schema_of
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import Engine
from stepback_server.engine.supervisor import StartEngine
from stepback_server.keys import KeyRing, is_loopback
from stepback_server.service import Service
from stepback_server.settings import Settings

_log = logging.getLogger(__name__)


def create_app(
    settings: Settings,
    checkpoint: Checkpoint,
    start_engine: StartEngine | None = None,
    on_failure: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The ASGI application. The engine starts with it and stops with it; until the engine is up,
    `/health` answers and `/ready` says no. `on_failure` is called where the engine cannot start.
    Raises KeysError where the keys cannot be read."""
    keys = KeyRing(settings.keys_file, settings.keys)
    if keys.is_open and not is_loopback(settings.host):
        _log.warning("%s is open to everybody who can reach it: no keys are set", settings.host)
    service = Service(settings, checkpoint, start_engine or _embedded(settings, checkpoint))

    def failed(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            _log.error("there is no engine, and none will come: %s", error)
            on_failure()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        running = asyncio.create_task(service.run())
        running.add_done_callback(failed)
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    app = FastAPI(
        title="Stepback",
        summary="Self-backtracking search for language models that know when to step back.",
        version=service.version,
        lifespan=lifespan,
        # A redirect would be made of whatever the caller's Host header says.
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.keys = keys
    app.state.metrics_need_key = settings.metrics_need_key
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes, count=service.metrics.refused)
    app.add_middleware(BrokenConnections)
    app.include_router(router)
    install_error_handlers(app)
    app.openapi = lambda: schema_of(app, settings)
    return app


def _embedded(settings: Settings, checkpoint: Checkpoint) -> StartEngine:
    def start() -> Engine:
        # Imported here: vLLM takes seconds, and /health should answer meanwhile.
        from stepback_server.engine.embedded import EmbeddedEngine

        return EmbeddedEngine.start(
            checkpoint.folder,
            context_tokens=checkpoint.context_tokens,
            cpu=settings.device == "cpu",
            kv_cache_bytes=settings.kv_cache_mib << 20,
            max_running=settings.max_running,
        )

    return start
