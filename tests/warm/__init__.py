"""Commands of the project in processes that have imported torch and vLLM before they begin; and so
the processes in which xdist runs the tests.

Nearly all of a start is imports, and the suite starts a hundred processes. Here a process imports
them once, before it has a thread, and forks one that runs `python -m MODULE ...` whenever a test
asks. That is a process like any other: it has its own environment, folder and streams, it gets
signals, and it leaves an exit status. A command begins cold outside a run of tests, and where a
test is about what a new Python does: the order of a start, what it loads, what is read at import.
"""

import json
import os
import select
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
from typing import IO, Any, TypedDict, Unpack

STEPBACK = "stepback_client.cli"
"""The module of the command `stepback`."""
_EXECUTABLES = {
    "python": None,
    "stepback": STEPBACK,
    "accelerate": "accelerate.commands.accelerate_cli",
}
CODE = "--code"
"""First argument of `python.py` where it is for code."""
_ROOT = Path(__file__).parents[2]
# Where the processes of a run meet, and which of them the run ends with.
_FOLDER, _OWNER = "WARM_FOLDER", "WARM_OWNER"
_LOG, _ENVIRONMENT = "log.txt", "environment.json"
LONGEST_REQUEST = 1 << 18
"""Bytes of a command and its environment."""
_RUN_SECONDS = 500
# The first question waits until all is imported.
_ANSWER_SECONDS = 500


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
        if self.returncode is None:
            ended = select.poll()
            ended.register(self._handle, select.POLLIN)
            if ended.poll(None if timeout is None else max(0.0, timeout) * 1000):
                with self._collecting:
                    if self.returncode is None:
                        self.returncode = _ask({"collect": self.pid})
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


class Surroundings(TypedDict, total=False):
    """Environment, folder and streams of a command. Each that is left out is this process's, but
    for its input, which is empty."""

    env: Mapping[str, str]
    cwd: Path
    stdin: Stream
    stdout: Stream
    stderr: Stream


def start(*command: str | Path, **given: Unpack[Surroundings]) -> Running:
    """Start `python -m` with this command. No stream can be a pipe."""
    if _FOLDER not in os.environ:
        return cold(*command, **Surroundings(stdin=subprocess.DEVNULL) | given)
    return start_python("-m", *map(str, command), **given)


def start_python(*words: str, **given: Unpack[Surroundings]) -> Process:
    """Start `python` with `-m MODULE ...` or `-c CODE ...`, in a run of tests."""
    request = {
        "command": words,
        "environment": dict(given.get("env", os.environ)),
        "folder": str(given.get("cwd", Path.cwd())),
    }
    with open(os.devnull, "r+b") as nowhere:
        streams = list[int]()
        asked = (given.get("stdin", nowhere), given.get("stdout", 1), given.get("stderr", 2))
        for stream in asked:
            if stream == subprocess.STDOUT:
                streams.append(streams[1])
            elif stream == subprocess.DEVNULL:
                streams.append(nowhere.fileno())
            else:
                streams.append(stream if isinstance(stream, int) else stream.fileno())
        return Process(_ask(request, streams), ["python", *words])


def cold(*command: str | Path, **given: Unpack[Surroundings]) -> subprocess.Popen[bytes]:
    """Start it as a new Python."""
    return subprocess.Popen([sys.executable, "-m", *map(str, command)], **given)


def run(
    *command: str | Path, encoding: str = "utf-8", **given: Unpack[Surroundings]
) -> subprocess.CompletedProcess[str]:
    """Run it to its end, and read what it printed."""
    with (
        TemporaryFile("w+", encoding=encoding) as out,
        TemporaryFile("w+", encoding=encoding) as err,
    ):
        process = start(*command, **given | {"stdout": out, "stderr": err})
        try:
            status = process.wait(_RUN_SECONDS)
        finally:
            process.kill()
            process.wait()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(process.args, status, out.read(), err.read())


def stepback(
    *command: str | Path, **given: Unpack[Surroundings]
) -> subprocess.CompletedProcess[str]:
    """Run `stepback` with this command."""
    return run(STEPBACK, *command, **given)


def python() -> str:
    """The executable that begins `-m MODULE ...` warm, for what starts processes of its own."""
    return str(_binaries() / "python")


def python_of_code() -> str:
    """The command whose `-c CODE ...` begins warm. That inherits the standard streams alone, which
    is too little for the processes of `multiprocessing`."""
    return f"{python()} {CODE}"


def search_path() -> str:
    """PATH with a `python`, a `stepback` and an `accelerate` that begin warm."""
    own = (_binaries(), Path(sys.executable).parent)
    return os.pathsep.join([*map(str, own), os.environ["PATH"]])


def _binaries() -> Path:
    return Path(os.environ[_FOLDER]) if _FOLDER in os.environ else Path(sys.executable).parent


def begin() -> None:
    """From now on let commands begin warm, in this process and in those that it starts."""
    folder = Path(mkdtemp(prefix="warm-"))
    # As it is before any test changes it.
    (folder / _ENVIRONMENT).write_text(json.dumps(dict(os.environ)))
    os.environ |= {_FOLDER: str(folder), _OWNER: str(os.getpid())}
    for name, module in _EXECUTABLES.items():
        words = f'-m {module} "$@"' if module else '"$@"'
        script = folder / name
        script.write_text(
            f'#!/bin/sh\nexec "{sys.executable}" "{_ROOT}/tests/warm/python.py" {words}\n'
        )
        script.chmod(0o755)


def end() -> None:
    """Undo `begin`. What runs goes on."""
    if os.environ.pop(_OWNER) == str(os.getpid()):
        rmtree(os.environ.pop(_FOLDER))


def _ask(request: Mapping[str, Any], streams: Sequence[int] = ()) -> int:
    """Ask the process that forks. Each question has a connection of its own, so that none that is
    broken off leaves its answer to another."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
        asking.settimeout(_ANSWER_SECONDS)
        asking.connect(str(_parent()))
        socket.send_fds(asking, [json.dumps(request).encode()], streams)
        answer = asking.recv(LONGEST_REQUEST)
    assert answer, f"no {request.get('command')}: {Path(os.environ[_FOLDER], _LOG).read_text()}"
    return int(answer)


@cache
def _parent() -> Path:
    """Its address. All of a run ask one process, which the first of them starts."""
    folder = Path(os.environ[_FOLDER])
    address = folder / "socket"
    with (folder / "lock").open("w") as lock:
        flock(lock, LOCK_EX)
        if not address.exists():
            _start_parent(address)
    return address


def _start_parent(address: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(address))
        listener.listen()
        descriptor = listener.fileno()
        command = [sys.executable, "-m", "tests.warm.forking", str(descriptor), os.environ[_OWNER]]
        # Not the streams of who happens to ask first: they may be pipes that somebody reads to
        # their end.
        with (address.parent / _LOG).open("w") as log:
            parent = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[descriptor],
                cwd=_ROOT,
                env=json.loads((address.parent / _ENVIRONMENT).read_text()),
            )
        # It ends with the run, so nobody waits for it.
        parent.returncode = 0
