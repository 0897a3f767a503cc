"""A vLLM plug-in, loaded in every process of the engine: die when the controller dies.

vLLM's core is a child process that outlives a parent killed with SIGKILL, with all of its memory.
"""

import multiprocessing
import multiprocessing.connection
import os
import threading


def die_with_parent() -> None:
    """In a child process, exit hard as soon as its parent is gone; elsewhere do nothing."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="die-with-parent", daemon=True).start()
