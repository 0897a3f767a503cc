"""The application: the one place where settings, checkpoint, engine and routes meet."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp

from stepback_server.api import batch
from stepback_server.api.cors import with_cors
from stepback_server.api.docs import install_docs
from stepback_server.api.errors import install_error_handlers
from stepback_server.api.guide import mount_guide
from stepback_server.api.job_handlers import handlers_of
from stepback_server.api.jobs import router as jobs_router
from stepback_server.api.middleware import BelowPrefix, BodyLimit, BrokenConnections, HeadAsGet
from stepback_server.api.openai import routes as openai_routes
from stepback_server.api.page import mount_page
from stepback_server.api.paths import FILES_PATH, SEARCH_PATHS
from stepback_server.api.routes import router
from stepback_server.api.schema import schema_of
from stepback_server.api.state import AppState, state_of
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.supervisor import StartEngine
from stepback_server.gateway.keys import KeyRing, is_loopback
from stepback_server.jobs.lazy import Jobs
from stepback_server.jobs.tries import Tries
from stepback_server.local import LocalSolver
from stepback_server.observability.access_log import AccessLog
from stepback_server.observability.tracing import Tracing
from stepback_server.setting_values import in_our_words
from stepback_server.settings import Settings

_log = logging.getLogger(__name__)


def create_app(
    settings: Settings,
    checkpoint: Checkpoint,
    start_engine: StartEngine | None = None,
    on_failure: Callable[[], None] = lambda: None,
    tracing: Tracing | None = None,
) -> FastAPI:
    """Create the ASGI application, with which the engine starts and stops.

    Until the engine is up, `/health` answers and `/ready` says no. `on_failure` is called where the
    engine cannot start. Raises InvalidInput for keys, a file of scorers or a guide that cannot be
    read.
    """
    keys = KeyRing(settings.keys_file, settings.keys.get_secret_value())
    if keys.is_open and not is_loopback(settings.host):
        _log.warning("%s is open to everybody who can reach it: no keys are set", settings.host)
    service = LocalSolver(settings, checkpoint, start_engine, tracing).service
    tries = Tries()
    handlers = handlers_of(service, settings, tries)
    jobs = Jobs(settings, handlers, lambda: service.model.id, keys.named, tries)
    service.show(jobs)

    def failed(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            _log.error("there is no engine, and none will come: %s", in_our_words(error))
            on_failure()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        if tracing is not None:
            tracing.begin()
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
        summary="Self-backtracking search for language models that mark their wrong steps.",
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
    for each in (router, batch.router, openai_routes.router, jobs_router):
        app.include_router(each)
    mount_page(app)
    mount_guide(app, settings.guide_dir)
    install_docs(app)
    install_error_handlers(app)
    app.openapi = lambda: schema_of(app, settings, service.model.tasks, service.model.scorers)
    return app


class _Application(FastAPI):
    """FastAPI with the access log around it, which so sees what no handler answers too."""

    def build_middleware_stack(self) -> ASGIApp:
        parts = state_of(self)
        inside = with_cors(super().build_middleware_stack(), parts.settings.cors_origins)
        logged = AccessLog(inside, parts.service.metrics.refused, SEARCH_PATHS)
        return BelowPrefix(logged, parts.settings.root_path)
