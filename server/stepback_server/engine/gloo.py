"""A vLLM plug-in, loaded in every process of the engine: all groups of gloo share one device.

vLLM makes a dozen process groups, also for a model that one process runs. torch gives each of them
a device of its own, whose thread wakes a hundred times a second for as long as the engine lives:
two per cent of a core for nothing. gloo lets groups share a device.
"""

import functools
import logging
import os
from typing import Any

_log = logging.getLogger(__name__)
# torch's own: the network interfaces to use, with commas between them.
_INTERFACES = "GLOO_SOCKET_IFNAME"
# A store, the rank and the size.
_GIVEN = 3


@functools.cache
def share_gloo_device() -> None:
    """Give the groups that this process makes from now on one device for each interface."""
    # Imported here: torch takes seconds, and the controller's own processes do without it.
    from torch.distributed import distributed_c10d

    gloo: Any = getattr(distributed_c10d, "ProcessGroupGloo", None)
    # Private names, which a later torch may change.
    if not hasattr(getattr(gloo, "_Options", None), "_devices"):
        _log.warning("groups of this torch cannot share a device: an engine at rest is not idle")
        return
    begin = gloo.__init__

    # Made with the first group: by then this process has its network and its environment.
    @functools.cache
    def devices() -> list[Any]:
        names = os.environ.get(_INTERFACES, "")
        if not names:
            return [gloo.create_default_device()]
        return [gloo.create_device(interface=name) for name in names.split(",")]

    # As torch calls it; what is asked for in another way has devices of its own.
    def share(self: Any, *given: Any, **named: Any) -> None:
        if named.keys() == {"timeout"} and len(given) == _GIVEN:
            options = gloo._Options()
            options._devices = devices()
            options._threads = 2 * len(options._devices)
            options._timeout = named.pop("timeout")
            given = (*given, options)
        begin(self, *given, **named)

    gloo.__init__ = share
