"""Longest sequence that the engine is made for: what the model allows and the machine holds."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from stepback_core.errors import InvalidInput
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.cpu_dtype import cpu_dtype
from stepback_server.settings import Settings

_log = logging.getLogger(__name__)

# Longer than any trace; models that promise more ask for memory that few machines have.
_USUAL_LONGEST = 32_768
# vllm_options.py gives vLLM this block size on a CPU.
_BLOCK = 32
_NAME = "STEPBACK_CONTEXT_TOKENS"

# Config fields of a model's shape, as Llama has them and as GPT-2 and Bloom do: attention heads,
# layers, and the width of a state.
_SHAPE_FIELDS = (
    ("num_attention_heads", "n_head"),
    ("num_hidden_layers", "n_layer"),
    ("hidden_size", "n_embd"),
)


def with_context(checkpoint: Checkpoint, settings: Settings) -> Checkpoint:
    """The checkpoint with the context that is served: the operator's, or what fits.

    Raises InvalidInput where the operator's is longer than the model's or than the cache.
    """
    model, wanted = checkpoint.context_tokens, settings.context_tokens
    # Remote servers size their own caches; the handshake compares the contexts.
    fits = None if settings.engine_urls else _fitting(checkpoint.folder, settings)
    # What an operator asks for is refused where it cannot be had; the default is made to fit.
    if wanted is not None:
        _check(wanted, model, fits, settings)
        return replace(checkpoint, context_tokens=wanted)
    served = min(model, _USUAL_LONGEST, fits or model)
    if served < model:
        _log.warning(
            "the model allows a context of %d tokens, %d are served: %s sets another number%s",
            *(model, served, _NAME),
            "" if fits is None else ", STEPBACK_KV_CACHE_MIB the memory for it",
        )
    return replace(checkpoint, context_tokens=served)


def _check(wanted: int, model: int, fits: int | None, settings: Settings) -> None:
    if wanted > model:
        raise InvalidInput(f"{_NAME}: the model has only {model} positions")
    if fits is not None and wanted > fits:
        raise InvalidInput(
            f"{_NAME}: {settings.kv_cache_mib} MiB of key-value cache hold {fits} tokens, not "
            f"{wanted}: raise STEPBACK_KV_CACHE_MIB"
        )


def _fitting(folder: Path, settings: Settings) -> int | None:
    """The tokens that the key-value cache on a CPU holds; None if vLLM sizes its own, or the
    configuration does not give the model's shape as usual."""
    if settings.device != "cpu":
        return None
    size = cache_bytes_per_token(cast("dict[str, Any]", json.loads(_config(folder))), settings)
    if size is None:
        return None
    blocks = (settings.kv_cache_mib << 20) // (size * _BLOCK)
    # vLLM keeps one for itself.
    return max(_BLOCK, (blocks - 1) * _BLOCK)


def _config(folder: Path) -> bytes:
    return (folder / "config.json").read_bytes()


def cache_bytes_per_token(config: dict[str, Any], settings: Settings) -> int | None:
    """Return the bytes of a token in the key-value cache; None for a shape that is not as usual."""
    heads, layers, hidden = (
        next((config[name] for name in names if config.get(name) is not None), None)
        for names in _SHAPE_FIELDS
    )
    keys = config.get("num_key_value_heads") or heads
    if not (isinstance(heads, int) and isinstance(layers, int) and isinstance(keys, int)):
        return None
    size = config.get("head_dim") or (hidden // heads if isinstance(hidden, int) else None)
    if not isinstance(size, int):
        return None
    dtype = cpu_dtype(settings.dtype) if settings.device == "cpu" else settings.dtype
    number_bytes = 4 if dtype == "float32" else 2
    # Keys and values.
    return 2 * layers * keys * size * number_bytes
