"""The process that imports torch and vLLM once, and forks each command of a run of tests.

    python -m tests.warm.forking LISTENER OWNER

The descriptor of its socket, and the process with which the run ends.
"""

import atexit
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, NoReturn

from setproctitle import setproctitle

from stepback_server.engine.fork_server import MODULES
from stepback_server.engine.orphan import without_threads
from stepback_server.engine.vllm_environment import prepare_environment
from stepback_server.engine.vllm_process import SERVER
from stepback_server.gc_tuning import tune_gc
from tests.warm import LONGEST_REQUEST

_COMMANDS = (
    "stepback_server.app",
    "stepback_server.commands.serve",
    "stepback_training.cli",
    "stepback_training.train.sft",
    "stepback_server.jobs.lifecycle",
    SERVER,
)

_NOT_WRITTEN = 120
"""Python's status where the last output could not be written."""


class Server:
    """Forks and collects as it is asked, until the run is over."""

    def __init__(self, listener: socket.socket, owner: int) -> None:
        self._listener = listener
        self._owner = os.pidfd_open(owner)
        self._selector = selectors.DefaultSelector()
        for each in (self._owner, listener):
            self._selector.register(each, selectors.EVENT_READ)

    def serve(self) -> dict[str, Any] | None:
        """Serve until the end, and return nothing. In the process of a command return that."""
        while True:
            for key, _ in self._selector.select():
                if key.fd == self._owner:
                    return None
                if key.fileobj is self._listener:
                    self._selector.register(self._listener.accept()[0], selectors.EVENT_READ)
                elif (asked := self._answer(key.fileobj)) is not None:
                    return asked

    def _answer(self, asking: Any) -> dict[str, Any] | None:
        """Answer the one question of a connection. In the process of a command return that."""
        self._selector.unregister(asking)
        with asking:
            try:
                text, streams, _, _ = socket.recv_fds(asking, LONGEST_REQUEST, 3)
                request: dict[str, Any] = json.loads(text)
                if "collect" in request:
                    answer = os.waitstatus_to_exitcode(os.waitpid(request["collect"], 0)[1])
                elif (answer := os.fork()) == 0:
                    self._close()
                    _take(streams)
                    return request
                for stream in streams:
                    os.close(stream)
                asking.send(str(answer).encode())
            # Of this connection alone: others ask on.
            except (OSError, ValueError) as error:
                print(f"a test's command: {error!r}", file=sys.stderr)
        return None

    def _close(self) -> None:
        """Leave a command nothing of this."""
        sockets = [key.fileobj for key in self._selector.get_map().values()]
        self._selector.close()
        os.close(self._owner)
        for each in sockets:
            if isinstance(each, socket.socket):
                each.close()


def _take(streams: Sequence[int]) -> None:
    """Make them the standard streams."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)


def _become(command: Sequence[str], environment: Mapping[str, str], folder: str) -> NoReturn:
    """Turn into the command, and end as it does."""
    # Its place is found by the environment that it stands before, which is about to be another.
    setproctitle(" ".join([sys.executable, *command]))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    _open_streams(environment.get("PYTHONIOENCODING", ""))
    option, what, *arguments = command
    sys.argv = [option, *arguments]
    # As of a new Python, which this one's path began with, too.
    sys.path[0] = folder
    sys.path[1:1] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    importlib.invalidate_caches()
    status = 1
    try:
        if option == "-c":
            _run_code(what)
        else:
            _run_module(what)
        status = 0
    except SystemExit as end:
        status = _status_of(end)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        if isinstance(error, KeyboardInterrupt):
            status = -signal.SIGINT
    _exit(status)


def _run_module(name: str) -> None:
    # Else Python warns that what it runs has been imported.
    sys.modules.pop(name, None)
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _run_code(text: str) -> None:
    main = sys.modules["__main__"] = ModuleType("__main__")
    exec(compile(text, "<string>", "exec"), vars(main))


def _open_streams(wanted: str) -> None:
    """Open the streams as a new Python does: those of this one were files of another kind."""
    encoding, _, errors = wanted.partition(":")
    rest: dict[str, Any] = {"encoding": encoding or "utf-8", "closefd": False}
    sys.stdin = open(0, errors=errors or "strict", **rest)  # noqa: SIM115
    sys.stdout = open(1, "w", errors=errors or "strict", **rest)  # noqa: SIM115
    sys.stderr = open(2, "w", errors="backslashreplace", buffering=1, **rest)  # noqa: SIM115


def _status_of(end: SystemExit) -> int:
    """The exit status, as Python has it."""
    if end.code is None or isinstance(end.code, int):
        return (end.code or 0) & 0xFF
    print(end.code, file=sys.stderr)
    return 1


def _exit(status: int) -> NoReturn:
    """End in the order of Python, without its last part. That takes every module down, and so
    copies all the memory that the processes share: three seconds of a core for each command."""
    wait_for_threads: Any = vars(threading)["_shutdown"]
    for last in (wait_for_threads, atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush):
        try:
            last()
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
            status = status or _NOT_WRITTEN
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def _main() -> None:
    listener, owner = map(int, sys.argv[1:])
    # It outlives Ctrl-C, which all of a run get: those who end then still ask.
    interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)
    _import_all()
    request = Server(socket.socket(fileno=listener), owner).serve()
    if request is not None:
        signal.signal(signal.SIGINT, interrupted)
        _become(**request)


def _import_all() -> None:
    # More threads than one begin as a library is loaded.
    os.environ["OMP_NUM_THREADS"] = "1"
    prepare_environment(cpu=True)
    with without_threads(), warnings.catch_warnings():
        # What ours warn of is an error, as in the processes that import them under pytest.
        warnings.filterwarnings("error", module="stepback_")
        for module in (*MODULES, *_COMMANDS):
            importlib.import_module(module)
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads cannot be forked"
    tune_gc()


if __name__ == "__main__":
    _main()
