"""The application: the one place where settings, checkpoint, engine and routes meet."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp

from stepback_server.api.errors import install_error_handlers
from stepback_server.api.limits import BodyLimit
from stepback_server.api.routes import router
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import Engine
from stepback_server.engine.supervisor import StartEngine
from stepback_server.observation.access import AccessLog
from stepback_server.observation.tracing import Tracing
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
    `/health` answers and `/ready` says no. `on_failure` is called where the engine cannot start."""
    starter = start_engine or _embedded(settings, checkpoint)
    service = Service(settings, checkpoint, starter, tracing)

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
            if tracing is not None:
                await asyncio.to_thread(tracing.close)

    app = _Logged(
        title="Stepback",
        summary="Self-backtracking search for language models that know when to step back.",
        version=service.version,
        lifespan=lifespan,
    )
    app.state.service = service
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes, count=service.metrics.refused)
    app.include_router(router)
    install_error_handlers(app)
    return app


class _Logged(FastAPI):
    """The application inside of its access log, which also sees what no handler answers."""

    def build_middleware_stack(self) -> ASGIApp:
        return AccessLog(super().build_middleware_stack())


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
