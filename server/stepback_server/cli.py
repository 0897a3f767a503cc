"""`stepback serve`: the controller, with its engine, until a signal."""

import asyncio
import logging
import math
import socket
import sys
from collections.abc import Sequence

from stepback_server.engine.environment import prepare_environment
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
    prepare_environment(cpu=settings.device == "cpu")

    import uvicorn

    from stepback_server.app import create_app
    from stepback_server.checkpoint import Checkpoint, CheckpointError

    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # It tells every request, and remote engines are asked several a second.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        checkpoint = Checkpoint.open(settings.model)
    except CheckpointError as error:
        print(f"stepback serve: {error}", file=sys.stderr)
        return 2

    failed = False

    def stop() -> None:
        nonlocal failed
        failed = True
        server.should_exit = True

    app = create_app(settings, checkpoint, on_failure=stop)

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
            timeout_graceful_shutdown=math.ceil(settings.grace_seconds) + 10,
        )
    )
    server.run()
    return 1 if failed else 0
