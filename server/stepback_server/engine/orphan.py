"""A vLLM plug-in, loaded in every process of the engine: die when the controller dies.

vLLM's core is a child process that outlives a parent killed with SIGKILL, with all of its memory.

It is entered twice. As a platform plug-in, which names no platform, it is loaded as soon as a
process imports vLLM; as a general one only once a core has met its controller, whom it awaits for
five minutes, and that also where VLLM_TARGET_DEVICE leaves the platform no choice.
"""

import ctypes
import functools
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

# prctl(2): the signal that the kernel sends when the parent has gone.
_PR_SET_PDEATHSIG = 1
# End of the command line of a process that `multiprocessing` spawns.
_SPAWNED = "--multiprocessing-fork"
_POLL_SECONDS = 0.1
_watch_may_start = threading.Event()
_watch_may_start.set()


@functools.cache
def die_with_parent() -> None:
    """Let a child process die as soon as its parent is gone. Elsewhere, and a second time, do
    nothing.

    Two ways, since neither is enough: a thread cannot run in a process that is stopped, and the
    kernel's signal is Linux's alone, and is not sent for a parent who had gone before it was asked
    for. To the kernel the parent is the *thread* that started the child: it must live as long.
    """
    if not _is_child():
        return
    be_killed_with_parent()
    if _watch_may_start.is_set():
        _start_watching()


def be_killed_with_parent() -> None:
    """Let the kernel kill this process as soon as the thread that started it is gone; on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@contextmanager
def without_threads() -> Generator[None]:
    """Start no thread that watches the parent before the end: this process is about to fork."""
    _watch_may_start.clear()
    try:
        yield
    finally:
        _watch_may_start.set()
        if die_with_parent.cache_info().currsize and _is_child():
            _start_watching()


def die_with_new_parent() -> None:
    """Do so in a fork of a process that may have asked for it already."""
    _watch_may_start.set()
    die_with_parent.cache_clear()
    die_with_parent()


def _is_child() -> bool:
    return multiprocessing.parent_process() is not None or sys.orig_argv[-1] == _SPAWNED


def _start_watching() -> None:
    threading.Thread(target=_watch, name="die-with-parent", daemon=True).start()


def _watch() -> None:
    # vLLM is imported as the process unpickles what it is to do: only then does it know its parent.
    while (parent := multiprocessing.parent_process()) is None:
        time.sleep(_POLL_SECONDS)
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
