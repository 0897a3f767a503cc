"""How vLLM is run: its only definition, in this process or as a server. Imports no vLLM."""

from pathlib import Path
from typing import Any


def engine_options(
    checkpoint: Path, *, context_tokens: int, cpu: bool, kv_cache_bytes: int, max_running: int
) -> dict[str, Any]:
    """vLLM's engine arguments: for an engine in this process, for a server (as flags), and for an
    offline one to compare with."""
    options: dict[str, Any] = {
        "model": str(checkpoint),
        "skip_tokenizer_init": True,
        "enable_prefix_caching": True,
        "generation_config": "vllm",
        "max_num_seqs": max_running,
        "max_model_len": context_tokens,
    }
    if not cpu:
        return options
    return options | {
        "dtype": "bfloat16",
        "kv_cache_memory_bytes": kv_cache_bytes,
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
        else:
            flags += [f"--{flag}", str(value)]
    return flags
