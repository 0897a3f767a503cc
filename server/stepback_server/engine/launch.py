"""`stepback engine`: a vLLM server for a checkpoint, as a controller with STEPBACK_ENGINE_URLS
wants it."""

import os
import sys
from collections.abc import Sequence

from stepback_server.checkpoint import Checkpoint, CheckpointError
from stepback_server.engine.environment import prepare_environment
from stepback_server.engine.options import as_flags, engine_options
from stepback_server.observation.logs import VLLM_JSON
from stepback_server.settings import Settings, SettingsError, read_settings

# `vllm serve` wants the metadata of a distribution called vllm, which the CPU wheel lacks.
_SERVER = "vllm.entrypoints.openai.api_server"


def engine(arguments: Sequence[str]) -> int:
    """Become a vLLM server. Takes the controller's settings: model, host, port, device,
    kv_cache_mib, max_running, log_format and engine_api_key. Returns 2 where they are refused."""
    try:
        settings = read_settings(arguments, command="engine")
        checkpoint = Checkpoint.open(settings.model)
    except (SettingsError, CheckpointError) as error:
        print(f"stepback engine: {error}", file=sys.stderr)  # noqa: T201 - a command's own words
        return 2
    prepare_environment(
        cpu=settings.device == "cpu",
        vllm_logging=VLLM_JSON if settings.log_format == "json" else None,
    )
    if settings.engine_api_key:
        # Not a flag: every user of the machine can read those.
        os.environ["VLLM_API_KEY"] = settings.engine_api_key.get_secret_value()
    os.execv(sys.executable, [sys.executable, "-m", _SERVER, *server_flags(settings, checkpoint)])


def server_flags(settings: Settings, checkpoint: Checkpoint) -> list[str]:
    """What vLLM's server is told on its command line."""
    options = engine_options(
        checkpoint.folder,
        context_tokens=checkpoint.context_tokens,
        cpu=settings.device == "cpu",
        kv_cache_bytes=settings.kv_cache_mib << 20,
        max_running=settings.max_running,
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
