"""`stepback serve`: the controller, with its engine, until a signal."""

import asyncio
import math
import os
import socket
import sys
from collections.abc import Sequence
from importlib.metadata import version as distribution_version

from stepback_server.engine.environment import prepare_environment
from stepback_server.observation.logs import VLLM_JSON, configure_logs
from stepback_server.observation.tracing import Tracing, TracingError
from stepback_server.settings import SettingsError, read_settings


def serve(arguments: Sequence[str]) -> int:
    """Serve until SIGINT or SIGTERM. Returns 0, or 2 where settings or checkpoint are refused,
    or 1 where the engine does not start."""
    try:
        settings = read_settings(arguments)
    except SettingsError as error:
        print(f"stepback serve: {error}", file=sys.stderr)
        return 2
    # Before anything imports torch.
    prepare_environment(
        cpu=settings.device == "cpu",
        vllm_logging=VLLM_JSON if settings.log_format == "json" else None,
    )
    configure_logs(settings.log_level, settings.log_format)

    import uvicorn

    from stepback_server.app import create_app
    from stepback_server.checkpoint import Checkpoint, CheckpointError

    try:
        checkpoint = Checkpoint.open(settings.model)
        tracing = Tracing.from_environment(os.environ, distribution_version("stepback"))
    except (CheckpointError, TracingError) as error:
        print(f"stepback serve: {error}", file=sys.stderr)
        return 2

    failed = False

    def stop() -> None:
        nonlocal failed
        failed = True
        server.should_exit = True

    app = create_app(settings, checkpoint, on_failure=stop, tracing=tracing)

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # Before uvicorn waits for its connections, so that they have something to say.
            draining = asyncio.create_task(app.state.service.drain())
            await super().shutdown(sockets)
            draining.cancel()

    server = Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_level=settings.log_level,
            # uvicorn's lines go where all lines go; the access log is our own.
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=math.ceil(settings.grace_seconds) + 10,
        )
    )
    server.run()
    return 1 if failed else 0
