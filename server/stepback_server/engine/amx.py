"""A vLLM plug-in, loaded in every process of the engine: ask the kernel for AMX tiles.

vLLM 0.32 takes its AMX attention on every processor that has AMX, but the kernel kills a process
with SIGILL at its first tile instruction unless it has asked for tiles. A oneDNN product of some
size asks by accident; a small model has none.
"""

import functools
import logging

_log = logging.getLogger(__name__)


@functools.cache
def permit_amx() -> None:
    """Let this process use AMX tiles; harmless where the processor has none."""
    # Imported here: torch takes seconds, and the controller's own processes do without it.
    import torch

    init = getattr(torch.cpu, "_init_amx", None)
    if init is None:  # a private function, which a later torch may rename
        _log.warning("this torch cannot ask for AMX: a small model may die of SIGILL")
        return
    init()
