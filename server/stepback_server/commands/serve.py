"""`stepback serve`: the controller, with its engine, until a signal. `stepback keys`: its keys."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from importlib.metadata import version as distribution_version

from stepback_core.errors import InvalidInput
from stepback_server.engine.vllm_environment import prepare_environment_for
from stepback_server.gateway.keys import new_key
from stepback_server.gc_tuning import tune_gc
from stepback_server.observability.logs import VLLM_JSON, configure_logs
from stepback_server.observability.tracing import leave_out_missing_propagators, tracing_or_warning
from stepback_server.plugins import plugins_of
from stepback_server.settings import Settings, read_settings

_log = logging.getLogger(__name__)

# After the grace period: for searches that were cut short, and for readers who are slow.
_SECONDS_TO_ANSWER = 10
# Seconds within which a second SIGINT ends the grace period.
_POLL_SECONDS = 0.1


def refuse(error: InvalidInput) -> int:
    """Say why the server cannot start. Returns the exit status."""
    print(f"stepback serve: {error}", file=sys.stderr)
    return 2


def serve(arguments: Sequence[str]) -> int:
    """Serve until SIGINT or SIGTERM. Returns 0, or 2 where settings or checkpoint are refused,
    or 1 where the engine does not start."""
    try:
        settings = read_settings(arguments)
    except InvalidInput as error:
        return refuse(error)
    # Before anything imports torch.
    prepare_environment_for(settings, VLLM_JSON if settings.log_format == "json" else None)
    configure_logs(settings.log_level, settings.log_format)
    try:
        with plugins_of(settings):
            return _serve(settings)
    except KeyboardInterrupt:  # Before uvicorn looks out for it.
        return 128 + signal.SIGINT
    except InvalidInput as error:
        print(f"stepback serve: {error}", file=sys.stderr)
        return 2


def _prepare_cores() -> None:
    """Start the fork server, before anything starts a thread. It takes seconds before the port is
    opened, and saves more of them."""
    from stepback_server.engine.fork_server import start_fork_server

    # The keys have just been read.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    start_fork_server()


def _serve(settings: Settings) -> int:
    import uvicorn

    from stepback_server.api.protocol import PatientProtocol
    from stepback_server.api.state import state_of
    from stepback_server.app import create_app
    from stepback_server.checkpoint import Checkpoint
    from stepback_server.engine.context import with_context

    try:
        checkpoint = with_context(Checkpoint.open(settings.model), settings)
    except InvalidInput as error:
        return refuse(error)
    leave_out_missing_propagators(os.environ)
    tracing = tracing_or_warning(os.environ, distribution_version("stepback-llm"))

    failed = False

    def stop() -> None:
        nonlocal failed
        failed = True
        server.should_exit = True

    try:
        app = create_app(settings, checkpoint, on_failure=stop, tracing=tracing)
    except InvalidInput as error:
        return refuse(error)

    if settings.device == "cpu" and not settings.engine_urls:
        # What can be refused has been by now.
        _prepare_cores()

    def reload_keys() -> None:
        try:
            state_of(app).keys.reload()
            _log.info("the keys were read again")
        except InvalidInput as error:
            _log.error("the keys stay as they were: %s", error)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload_keys)
            await super().startup(sockets)
            tune_gc()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            # Before uvicorn closes its listener: until then `/ready` and `/solve` answer that the
            # server is shutting down, and no connection is refused.
            draining = asyncio.create_task(state_of(app).drain())
            while not (draining.done() or self.force_exit):
                await asyncio.wait({draining}, timeout=_POLL_SECONDS)
            draining.cancel()
            await super().shutdown(sockets)

    server = Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            http=PatientProtocol,
            # Else a caller's X-Forwarded-For would stand in the access log, whatever it says.
            proxy_headers=False,
            log_level=settings.log_level,
            # uvicorn's lines go where all lines go; the access log is our own.
            log_config=None,
            access_log=False,
            timeout_keep_alive=settings.keep_alive_seconds,
            timeout_graceful_shutdown=_SECONDS_TO_ANSWER,
        )
    )
    server.run()
    return 1 if failed else 0


def keys(arguments: Sequence[str]) -> int:
    """Print a fresh key, which is shown this once, and what the server keeps of it."""
    given = _keys_parser().parse_args(arguments)
    try:
        key, line = new_key(given.name, given.max_searches, given.tokens_per_minute)
    except InvalidInput as error:
        print(f"stepback {error}", file=sys.stderr)
        return 2
    print(f"# The key, shown this once; whoever uses it sets STEPBACK_API_KEY to it:\n{key}\n")
    print(f"# Its line for the server's keys file (STEPBACK_KEYS_FILE):\n{line}")
    return 0


def _keys_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("stepback keys", description="API keys of a controller.")
    new = parser.add_subparsers(metavar="COMMAND", required=True).add_parser(
        "new", help="make a key", description="Make a key: print it, and its hashed entry."
    )
    new.add_argument("name", metavar="NAME", help="whose it is; for logs and metrics")
    new.add_argument("--max-searches", type=int, help="searches in flight at once")
    new.add_argument("--tokens-per-minute", type=int, help="generated tokens a minute")
    return parser
