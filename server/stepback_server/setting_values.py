"""Values of settings that are read out of text: the engines' key, and vLLM's own arguments."""

import json
import re
from typing import Annotated, Any, cast

from pydantic import BeforeValidator, SecretStr


def _read_key(text: object) -> object:
    """A key without the line end of the file that it was kept in. Never repeats it in an error."""
    if not isinstance(text, str):
        return text
    key = text.rstrip("\r\n")
    if not re.fullmatch(r"[!-~]*", key):
        raise ValueError("it may hold printable ASCII characters without spaces, and nothing else")
    return key or None


# vLLM's arguments that have a setting of their own.
_OURS = {
    "model": "STEPBACK_MODEL",
    "host": "STEPBACK_HOST",
    "port": "STEPBACK_PORT",
    "api_key": "STEPBACK_ENGINE_API_KEY",
    "max_model_len": "STEPBACK_CONTEXT_TOKENS",
    "dtype": "STEPBACK_DTYPE",
    "max_num_seqs": "STEPBACK_MAX_RUNNING",
    "kv_cache_memory_bytes": "STEPBACK_KV_CACHE_MIB",
    "gpu_memory_utilization": "STEPBACK_GPU_MEMORY_SHARE",
    "tensor_parallel_size": "STEPBACK_TENSOR_PARALLEL",
    "quantization": "STEPBACK_QUANTIZATION",
}
# vLLM's arguments that a search depends on.
_REQUIRED = frozenset(
    {
        *("served_model_name", "skip_tokenizer_init", "enable_prefix_caching", "generation_config"),
        *("enable_prompt_tokens_details", "enable_scale_out"),
    }
)

# Too common as words to be taken for vLLM's arguments.
_WORDS = frozenset({"model", "host", "port"})


def in_our_words(error: object) -> str:
    """An error of vLLM's, with the settings of those of its arguments that it names."""
    text = str(error)
    named = [
        f"{argument} is {setting} here"
        for argument, setting in _OURS.items()
        if argument not in _WORDS and re.search(argument.replace("_", "[-_]") + r"\b", text)
    ]
    return f"{text} ({', '.join(named)})" if named else text


def _read_vllm_args(text: object) -> object:
    """vLLM's arguments out of a JSON object; dashes in a name count as underscores."""
    try:
        read: object = json.loads(text or "{}") if isinstance(text, str) else text
    except ValueError as error:
        raise ValueError(f"it is no JSON ({error})") from error
    if not isinstance(read, dict):
        raise ValueError('it is no JSON object, as {"max_num_batched_tokens": 4096} is')
    given = {
        str(name).lstrip("-").replace("-", "_"): value
        for name, value in cast("dict[object, Any]", read).items()
    }
    for name in given:
        if name in _OURS:
            raise ValueError(f"{name} is set by {_OURS[name]}")
        if name in _REQUIRED:
            raise ValueError(f"{name} is not to be changed: the search depends on it")
    return given


EngineKey = Annotated[SecretStr | None, BeforeValidator(_read_key)]
VllmArgs = Annotated[dict[str, Any], BeforeValidator(_read_vllm_args)]
