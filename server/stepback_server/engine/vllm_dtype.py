"""The numbers that a GPU can compute with. Imports vLLM: for the processes that run it alone."""

import logging

from vllm.platforms import current_platform

_log = logging.getLogger(__name__)

# Compute capability 8.0: Ampere. T4, V100 and RTX 20 are older.
_BFLOAT16_CAPABILITY = 80


def supported_dtype(dtype: str) -> str:
    """vLLM's `dtype`, with float16 for "auto" on a GPU that has no bfloat16."""
    if dtype != "auto" or has_bfloat16():
        return dtype
    _log.warning("this GPU has no bfloat16: float16 is used; STEPBACK_DTYPE=float32 is the other")
    return "float16"


def has_bfloat16() -> bool:
    """Tell by the driver, without putting the GPU to use in this process."""
    return not current_platform.is_cuda() or current_platform.has_device_capability(
        _BFLOAT16_CAPABILITY
    )
