"""Options of vLLM: their only definition, in this process or as a server. Imports no vLLM."""

import json
from pathlib import Path
from typing import Any, cast

from stepback_server.engine.cpu_dtype import cpu_dtype
from stepback_server.settings import Settings


def engine_options(checkpoint: Path, settings: Settings, *, context_tokens: int) -> dict[str, Any]:
    """vLLM's engine arguments: for an engine in this process, for a server (as flags), and for an
    offline one to compare with."""
    options: dict[str, Any] = {
        "model": str(checkpoint),
        "skip_tokenizer_init": True,
        "enable_prefix_caching": True,
        # Else a checkpoint's generation_config.json would change top_p and top_k behind the
        # search's back.
        "generation_config": "vllm",
        "max_num_seqs": settings.max_running,
        "max_model_len": context_tokens,
        "dtype": settings.dtype,
    }
    if settings.tensor_parallel > 1:
        options["tensor_parallel_size"] = settings.tensor_parallel
    if settings.quantization is not None:
        options["quantization"] = settings.quantization
    if settings.device == "cpu":
        options |= _cpu(settings, context_tokens)
    else:
        options["gpu_memory_utilization"] = settings.gpu_memory_share
    # The operator's come last; settings.py refuses those that a search depends on.
    return options | settings.vllm_args


def _cpu(settings: Settings, context_tokens: int) -> dict[str, Any]:
    return {
        "dtype": cpu_dtype(settings.dtype),
        "kv_cache_memory_bytes": settings.kv_cache_mib << 20,
        # The least that vLLM takes on a CPU, where its default is 128. A prefix hits only in whole
        # blocks, and a trace is short.
        "block_size": 32,
        "enforce_eager": True,
        # A prefill cut in two makes vLLM 0.32 rewind the generator of a seeded request, which a
        # CPU generator cannot do: the engine core dies of it.
        "enable_chunked_prefill": False,
        # What a step needs in memory grows with it; more than this brings no more tokens a second.
        "max_num_batched_tokens": max(2048, context_tokens),
    }


def as_flags(options: dict[str, Any]) -> list[str]:
    """The same arguments on the command line of vLLM's server."""
    flags: list[str] = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list):
            flags += [f"--{flag}", *map(str, cast("list[object]", value))]
        else:
            flags += [f"--{flag}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return flags
