"""`stepback engine`: a vLLM server for a checkpoint, as a controller with STEPBACK_ENGINE_URLS
wants it, replaced when it hangs or dies."""

import asyncio
import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence

from stepback_core.errors import InvalidInput
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.context import with_context
from stepback_server.engine.fork_server import start_fork_server
from stepback_server.engine.handshake import ExpectedServer
from stepback_server.engine.supervisor import HealthCheckConfig, Supervisor, canary
from stepback_server.engine.vllm_environment import prepare_environment_for
from stepback_server.engine.vllm_options import as_flags, engine_options
from stepback_server.engine.vllm_process import SERVER, VllmLauncher, serve_vllm
from stepback_server.observability.logs import VLLM_JSON, configure_logs
from stepback_server.observability.tracing import leave_out_missing_propagators
from stepback_server.setting_values import in_our_words
from stepback_server.settings import Settings, read_settings

_log = logging.getLogger(__name__)


def engine(arguments: Sequence[str]) -> int:
    """Keep a vLLM server until SIGINT or SIGTERM. Returns 0, 2 for bad settings, 1 where the first
    server does not start, or 130 where SIGINT comes before it is started."""
    try:
        settings = _with_port(read_settings(arguments, command="engine"))
        # First: a checkpoint's tokenizer would start threads, beside which nothing can be forked.
        prepare_environment_for(settings, VLLM_JSON if settings.log_format == "json" else None)
        checkpoint = with_context(Checkpoint.open(settings.model), settings)
    except InvalidInput as error:
        print(f"stepback engine: {error}", file=sys.stderr)
        return 2
    configure_logs(settings.log_level, settings.log_format)
    leave_out_missing_propagators(os.environ)
    expected = ExpectedServer.of(checkpoint, settings)
    if expected.api_key:
        # Not a flag: every user of the machine can read those.
        os.environ["VLLM_API_KEY"] = expected.api_key
    flags, url = server_flags(settings, checkpoint), own_url(settings.host, settings.port)
    on_cpu = settings.device == "cpu"
    if on_cpu:
        try:
            start_fork_server(SERVER)
        except KeyboardInterrupt:  # before `keep` looks out for it
            return 128 + signal.SIGINT
    launcher = VllmLauncher(serve_vllm, flags, url, expected, fork_cores=on_cpu)
    end_id = checkpoint.codec.tokens.end_id
    supervisor = Supervisor(launcher.start, canary(end_id), patience(os.environ), name=url)
    return asyncio.run(keep(supervisor, launcher))


async def keep(supervisor: Supervisor, launcher: VllmLauncher) -> int:
    """Keep a server up until a signal. Returns 1 where there is none to begin with."""
    running = asyncio.create_task(supervisor.run())

    def stop() -> None:
        launcher.give_up()
        running.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        await running
    except asyncio.CancelledError:
        return 0
    except Exception as error:  # whatever a start can fail of: the process ends with it
        _log.error("there is no engine, and none will come: %s", in_our_words(error))
    return 1


def patience(environment: Mapping[str, str]) -> HealthCheckConfig:
    """Tell how closely a server of our own is watched: a check is a request."""
    usual = HealthCheckConfig(between_checks=1.0)
    if environment.get("VLLM_SERVER_DEV_MODE", "0") == "0":
        return usual
    # It may have to load new weights, and stands still meanwhile, for as long as they are large.
    return HealthCheckConfig(between_checks=1.0, canary_deadline=usual.reload_deadline)


def own_url(host: str, port: int) -> str:
    """Return the URL by which this machine reaches a server that listens there."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{port}"
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"http://[{address}]:{port}" if address.version == 6 else f"http://{address}:{port}"


def _with_port(settings: Settings) -> Settings:
    """Replace port 0 by a free one. Raises InvalidInput where the port is taken: whatever
    listens there would be mistaken for our own server."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        with socket.create_server((settings.host, settings.port), family=family) as listener:
            port: int = listener.getsockname()[1]
    except OSError as error:
        raise InvalidInput(
            f"STEPBACK_HOST, STEPBACK_PORT: cannot listen on {settings.host}, port "
            f"{settings.port}: {error.strerror or error}"
        ) from error
    return settings.model_copy(update={"port": port})


def server_flags(settings: Settings, checkpoint: Checkpoint) -> list[str]:
    """Return the command line of vLLM's server."""
    options = engine_options(
        checkpoint.folder, settings, context_tokens=checkpoint.context_tokens
    ) | {
        "served_model_name": checkpoint.manifest.name,
        "host": settings.host,
        "port": settings.port,
        # Tells how much of a prompt came from the prefix cache.
        "enable_prompt_tokens_details": True,
        # Requests can be aborted by name, and say what they had generated.
        "enable_scale_out": True,
        "disable_uvicorn_access_log": True,
    }
    return as_flags(options)
