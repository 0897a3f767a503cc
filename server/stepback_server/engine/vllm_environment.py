"""The environment that vLLM on a CPU needs, set before torch is imported.

With a busy neighbour two spinning OpenMP threads sampled 25 to 50 times slower than one passive
thread with a small model, and the first request for log-probabilities compiled for 14 s: both are
measured, neither is vLLM's default. A variable that is set already is left alone, but for those
that must hold.
"""

import os
from pathlib import Path

from stepback_core.cores import usable_cores
from stepback_server.settings import Settings

# Weights from which on a step is long enough for threads to wait for each other.
_LARGE_BYTES = 256 << 20
_CPU = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "TORCH_COMPILE_DISABLE": "1",
    # Matrix kernels, one for each batch size: 1,024 of them hold 370 MiB, which an engine takes ten
    # minutes to fill, so that it seems to leak.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "512",
    # One child process instead of two: the worker lives in the engine core.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
_ALWAYS = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
_REQUIRED = {
    # vLLM forks on CUDA otherwise. A forked core finds its plug-ins loaded, so that `orphan` never
    # runs there, and it outlives a controller that is killed, with the GPU's memory.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}


def prepare_environment(*, cpu: bool, threads: int = 1, vllm_logging: Path | None = None) -> None:
    """Set what is missing, and what is required. Call it before anything imports torch.
    `threads` are vLLM's on a CPU. `vllm_logging` is a logging configuration for vLLM's processes;
    its own if left out."""
    wanted = (_CPU | _ALWAYS | {"OMP_NUM_THREADS": str(threads)}) if cpu else _ALWAYS
    if vllm_logging is not None:
        wanted = wanted | {"VLLM_LOGGING_CONFIG_PATH": str(vllm_logging)}
    for name, value in wanted.items():
        # An operator's own value wins.
        os.environ.setdefault(name, value)
    os.environ.update(_REQUIRED)
    # Kubernetes sets it in each pod for a Service named vllm; vLLM takes it for a number and fails.
    if "://" in os.environ.get("VLLM_PORT", ""):
        del os.environ["VLLM_PORT"]


def prepare_environment_for(settings: Settings, vllm_logging: Path | None = None) -> None:
    """Do so as the settings have it: their device, and their threads or those that suit."""
    prepare_environment(
        cpu=settings.device == "cpu",
        threads=settings.threads or threads_for(settings.model),
        vllm_logging=vllm_logging,
    )


def threads_for(model: Path) -> int:
    """The threads that suit the size of a model's weights: one, or all cores."""
    # The files' size, without opening them: this runs before torch may be imported.
    size = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    return usable_cores() if size >= _LARGE_BYTES else 1
