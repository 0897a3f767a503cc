"""Commands of the project in processes that have imported torch and vLLM before they begin.

Nearly all of a start is imports, and the suite starts a hundred processes. Here a process imports
them once, before it has a thread, and forks one that runs `python -m MODULE ...` whenever a test
asks. That is a process like any other: it has its own environment, folder and streams, it gets
signals, and it leaves an exit status. A command begins cold outside a run of tests, and where the
order of a start is what is tested.
"""

import importlib
import json
import os
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fcntl import LOCK_EX, flock
from functools import cache
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryFile, mkdtemp
from typing import IO, Any

from setproctitle import setproctitle

STEPBACK = "stepback_client.cli"
"""The module of the command `stepback`."""
_ROOT = Path(__file__).parents[1]
# Where the processes of a run meet, and which of them the run ends with.
_FOLDER, _OWNER = "WARM_FOLDER", "WARM_OWNER"
# Bytes of a request: a command and its environment.
_LONGEST = 1 << 18


class Process:
    """A running command, as `subprocess.Popen` has it."""

    def __init__(self, pid: int, command: Sequence[str]) -> None:
        self.pid = pid
        self.args = command
        self.returncode: int | None = None
        # Its number is nobody else's until its status is collected.
        self._handle = os.pidfd_open(pid)
        self._collecting = threading.Lock()

    def poll(self) -> int | None:
        return self._collect(0)

    def wait(self, timeout: float | None = None) -> int:
        status = self._collect(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return status

    def _collect(self, timeout: float | None) -> int | None:
        with self._collecting:
            if self.returncode is None:
                poll = select.poll()
                poll.register(self._handle, select.POLLIN)
                if poll.poll(None if timeout is None else timeout * 1000):
                    self.returncode = _parent().ask({"collect": self.pid})
                    os.close(self._handle)
            return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


Running = Process | subprocess.Popen[bytes]
Stream = IO[Any] | int


def start(
    *command: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdout: Stream | None = None,
    stderr: Stream | None = None,
) -> Running:
    """Start `python -m` with this command. No stream can be a pipe; none is left open behind it."""
    if _FOLDER not in os.environ:
        return cold(*command, env=env, cwd=cwd, stdout=stdout, stderr=stderr)
    words = [str(word) for word in command]
    request = {
        "command": words,
        "environment": dict(os.environ if env is None else env),
        "folder": str(cwd or Path.cwd()),
    }
    with open(os.devnull, "r+b") as nowhere:
        streams = [nowhere.fileno()]
        for given, own in ((stdout, 1), (stderr, 2)):
            if given == subprocess.STDOUT:
                streams.append(streams[1])
            elif given == subprocess.DEVNULL:
                streams.append(nowhere.fileno())
            elif isinstance(given, int):
                assert given >= 0, "a stream is a file or a descriptor here"
                streams.append(given)
            else:
                streams.append(own if given is None else given.fileno())
        return Process(_parent().ask(request, streams), ["python", "-m", *words])


def cold(
    *command: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdout: Stream | None = None,
    stderr: Stream | None = None,
) -> subprocess.Popen[bytes]:
    """Start it as a new Python."""
    words = [sys.executable, "-m", *map(str, command)]
    return subprocess.Popen(words, env=env, cwd=cwd, stdout=stdout, stderr=stderr)


def run(
    *command: str | Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 500,
) -> subprocess.CompletedProcess[str]:
    """Run it to its end, and read what it printed."""
    with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        process = start(*command, env=env, cwd=cwd, stdout=out, stderr=err)
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
            process.wait()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(process.args, status, out.read(), err.read())


def stepback(
    *command: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `stepback` with this command."""
    return run(STEPBACK, *command, env=env, cwd=cwd)


def begin() -> None:
    """From now on let commands begin warm, in this process and in those that it starts."""
    os.environ |= {_FOLDER: mkdtemp(prefix="warm-"), _OWNER: str(os.getpid())}


def end() -> None:
    """Undo `begin`. What runs goes on."""
    if _parent.cache_info().currsize:
        _parent().close()
    if os.environ.pop(_OWNER) == str(os.getpid()):
        rmtree(os.environ.pop(_FOLDER))


class _Parent:
    """The process that has imported all and forks the commands, seen from here."""

    def __init__(self, folder: Path) -> None:
        self._asking = threading.Lock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        address = folder / "socket"
        # All of a run ask one process, which the first of them starts.
        with (folder / "lock").open("w") as lock:
            flock(lock, LOCK_EX)
            if not address.exists():
                _start_parent(address)
        self._socket.connect(str(address))

    def close(self) -> None:
        self._socket.close()

    def ask(self, request: Mapping[str, Any], streams: Sequence[int] = ()) -> int:
        with self._asking:
            socket.send_fds(self._socket, [json.dumps(request).encode()], streams)
            answer = self._socket.recv(_LONGEST)
        assert answer, "the process that forks commands has ended"
        return int(answer)


@cache
def _parent() -> _Parent:
    return _Parent(Path(os.environ[_FOLDER]))


def _start_parent(address: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(address))
        listener.listen()
        descriptor = listener.fileno()
        command = [sys.executable, "-m", "tests.warm", str(descriptor), os.environ[_OWNER]]
        # It ends with the run, so nobody waits for it.
        parent = subprocess.Popen(command, pass_fds=[descriptor], cwd=_ROOT)
        parent.returncode = 0


class _Server:
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
        text, streams, _, _ = socket.recv_fds(asking, _LONGEST, 3)
        if not text:
            self._selector.unregister(asking)
            asking.close()
            return None
        request: dict[str, Any] = json.loads(text)
        if "collect" in request:
            _, status = os.waitpid(request["collect"], 0)
            asking.send(str(os.waitstatus_to_exitcode(status)).encode())
            return None
        pid = os.fork()
        if pid == 0:
            self._close()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
        for stream in streams:
            os.close(stream)
        if pid == 0:
            return request
        asking.send(str(pid).encode())
        return None

    def _close(self) -> None:
        """Leave a command nothing of this."""
        sockets = [key.fileobj for key in self._selector.get_map().values()]
        self._selector.close()
        os.close(self._owner)
        for each in sockets:
            if isinstance(each, socket.socket):
                each.close()


def _become(command: Sequence[str], environment: Mapping[str, str], folder: str) -> None:
    """Turn into the command, whose exit is that of this process."""
    # Its place is found by the environment that it stands before, which is about to be another.
    setproctitle(" ".join([sys.executable, "-m", *command]))
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    module, *arguments = command
    sys.argv[1:] = arguments
    # As of a new Python, which this one's path began with, too.
    sys.path[0] = folder
    sys.path[1:1] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    importlib.invalidate_caches()
    # Else Python warns that what it runs has been imported.
    sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _main() -> None:
    listener, owner = map(int, sys.argv[1:])
    _import_all()
    request = _Server(socket.socket(fileno=listener), owner).serve()
    if request is not None:
        _become(**request)


def _import_all() -> None:
    from stepback_server.engine.fork_server import MODULES
    from stepback_server.engine.orphan import without_threads
    from stepback_server.gc_tuning import tune_gc

    commands = "stepback_server.app", "stepback_server.commands.serve", "stepback_training.cli"
    training = "stepback_training.train.sft", "stepback_training.data.samples"
    with without_threads():
        for module in (*MODULES, *commands, *training):
            importlib.import_module(module)
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads cannot be forked"
    tune_gc()


if __name__ == "__main__":
    _main()
