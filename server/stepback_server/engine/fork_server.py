"""A fork server: a process that has imported vLLM, and forks vLLM's processes when asked.

vLLM starts its core as a new Python, which imports all of vLLM a second time: half of a start. Here
the controller imports it once, before it has a thread, and forks a process that waits. Every core
is forked from there, the first and those that replace it. So is every server that `stepback engine`
keeps, which has a fork server of its own for its cores. A fork server is Python's own
(`multiprocessing.forkserver`), but for how it begins.

On a CPU of Linux: a device's driver may not survive a fork. Where there is no fork server a process
starts as vLLM has it.
"""

import importlib
import logging
import multiprocessing.forkserver
import os
import signal
import socket
import sys
import tempfile
import threading
from contextlib import suppress
from multiprocessing import popen_forkserver
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerContext, ForkServerProcess, SpawnContext
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

from stepback_server.engine.orphan import (
    be_killed_with_parent,
    die_with_new_parent,
    without_threads,
)
from stepback_server.gc_tuning import tune_gc

_log = logging.getLogger(__name__)

# What the controller and a core import.
MODULES = (
    "stepback_server.engine.embedded",
    "vllm.model_executor.models.llama",
    "vllm.v1.engine.core",
    "vllm.v1.executor.uniproc_executor",
    "vllm.v1.worker.cpu_worker",
)
_STANDARD_STREAMS = (1, 2)
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
# Python starts its fork server with the first process that it is asked for. This one is started
# here, and handed to it; no public function does that.
_python: Any = vars(multiprocessing.forkserver)["_forkserver"]
_server: int | None = None
"""The fork server of this process."""


def start_fork_server(*to_run: str) -> None:
    """Import vLLM and what its processes are to run, and fork the server. It takes seconds.

    Call it in the main thread, before anything starts another, and after `prepare_environment`.
    Where there can be no fork server, the log says so, and processes start without."""
    if sys.platform != "linux":
        return
    # The first process of a container gets no signal that it has no handler for.
    before = signal.signal(signal.SIGTERM, _end)
    try:
        # What is not installed is named when the engine starts.
        with without_threads(), suppress(ModuleNotFoundError):
            for module in (*MODULES, *to_run):
                importlib.import_module(module)
            for module in to_run:
                # It runs as the main module. Python warns where that has been imported.
                del sys.modules[module]
            _fork()
    except (ImportError, OSError) as error:
        _log.warning("no fork server, so an engine takes longer to start: %s", error)
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, _: object) -> None:
    sys.exit(128 + number)


def _fork() -> None:
    if len(os.listdir("/proc/self/task")) > 1:
        # A lock that another thread holds now would be held for good in the fork.
        _log.warning("no fork server, so an engine takes longer to start: there are threads")
        return
    # What is loaded now stays, and its pages are shared as long as nobody walks through them.
    tune_gc()
    listener, address = _listen()
    # Python's server ends when nobody holds the writing end any more.
    reader, writer = os.pipe()
    controller = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(writer)
        _serve(controller, listener.detach(), reader)
    listener.close()
    os.close(reader)
    _python._forkserver_address = address
    _python._forkserver_alive_fd = writer
    _python._forkserver_pid = pid
    global _server
    _server = pid
    _start_cores_there()


def _listen() -> tuple[socket.socket, str]:
    """A socket that this process and its forks alone can reach, and by which address."""
    listener = socket.socket(socket.AF_UNIX)
    with tempfile.TemporaryDirectory(prefix="stepback-") as folder:
        path = Path(folder, "cores")
        listener.bind(str(path))
        # The file goes with its folder, and nothing is left of a process that is killed: it is
        # found by this descriptor.
        found = os.open(path, os.O_PATH)
    listener.listen()
    return listener, f"/proc/self/fd/{found}"


def _serve(controller: int, listener: int, alive: int) -> None:
    from vllm.utils.system_utils import set_process_title

    # By the kernel: so also while it is stopped.
    be_killed_with_parent()
    # vLLM writes VLLM:: in front, as for its own processes.
    set_process_title("ForkServer")
    # They are for the controller, which ends this process with itself.
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    status = 1
    try:
        if os.getppid() == controller:
            multiprocessing.forkserver.main(listener, alive, preload=[])
    except SystemExit:
        status = 0
    finally:
        # None of what the controller does at its exit.
        os._exit(status)


def _start_cores_there() -> None:
    # vLLM knows of no third way beside fork and spawn, and asks this function alone.
    vllm_processes: Any = importlib.import_module("vllm.v1.engine.utils")
    without = vllm_processes.get_mp_context
    vllm_processes.get_mp_context = lambda: _CoreContext() if _can_fork() else without()


def server_context() -> "_ServerContext | SpawnContext":
    """How a server of vLLM's is started: forked if it can be, or else as a new Python. Its target
    calls `die_with_parent` once it has forked what it will."""
    return _ServerContext() if _can_fork() else multiprocessing.get_context("spawn")


def _can_fork() -> bool:
    if _server is None:
        return False
    if not _lives(_server):
        _log.warning("the fork server has ended: an engine takes longer to start")
        return False
    return are_loaded(os.environ.get("LD_PRELOAD", ""))


def _lives(child: int) -> bool:
    try:
        # It stays to be collected by who started it: Python's part of this.
        return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def are_loaded(libraries: str) -> bool:
    """Tell whether this process has what vLLM wants loaded before everything else: only a new
    process obeys that variable."""
    mapped = Path("/proc/self/maps").read_text()
    return all(str(Path(each).resolve()) in mapped for each in libraries.split(":") if each)


class _Popen(popen_forkserver.Popen):
    """Python's, for more than one thread: vLLM looks how a core ended, and so do we."""

    def __init__(self, process: BaseProcess) -> None:
        self._looking = threading.Lock()
        super().__init__(process)

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        if self.returncode is None and wait([self.sentinel], 0 if flag else None):
            with self._looking:
                if self.returncode is None:
                    self.returncode = self._read_status()
        return self.returncode

    def _read_status(self) -> int:
        try:
            return multiprocessing.forkserver.read_signed(self.sentinel)
        except (OSError, EOFError):
            # The server has gone, and the kernel has killed its cores with it.
            return -signal.SIGKILL


class _ForkedProcess(ForkServerProcess):
    """A process with the environment and the standard streams that this one has at its start, as if
    it were a child of it."""

    _environment: dict[str, str]
    _streams: list[Any]

    @staticmethod
    def _Popen(process_obj: BaseProcess) -> _Popen:
        return _Popen(process_obj)

    def start(self) -> None:
        self._environment = dict(os.environ)
        super().start()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_streams": [DupFd(number) for number in _STANDARD_STREAMS]}

    def run(self) -> None:
        for number, stream in zip(_STANDARD_STREAMS, self._streams, strict=True):
            os.dup2(stream.detach(), number)
        os.environ.clear()
        os.environ.update(self._environment)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        # Else the fork server would live as long as what it forked.
        with suppress(OSError):
            os.close(_python._forkserver_alive_fd)
        self._end_with_parent()
        super().run()

    def _end_with_parent(self) -> None:
        die_with_new_parent()


class _ServerProcess(_ForkedProcess):
    """A process of vLLM's server. It is about to fork, and may have no thread yet."""

    def _end_with_parent(self) -> None:
        be_killed_with_parent()


class _ServerContext(ForkServerContext):
    Process = _ServerProcess


class _CoreContext(ForkServerContext):
    Process = _ForkedProcess
