"""vLLM's server as a child process: the engine that `stepback engine` keeps alive."""

import asyncio
import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from stepback_server.engine.base import (
    EngineError,
    EngineUnavailable,
    OnSample,
    SampleRequest,
)
from stepback_server.engine.core_processes import CoreProcesses
from stepback_server.engine.death import Death, cause_of, core_report, failed_cores, reported_cause
from stepback_server.engine.fork_server import server_context, start_fork_server
from stepback_server.engine.handshake import ExpectedServer
from stepback_server.engine.orphan import die_with_parent
from stepback_server.engine.output import Output
from stepback_server.engine.remote import RemoteEngine

# `vllm serve` wants the metadata of a distribution called vllm, which the CPU wheel lacks.
SERVER = "vllm.entrypoints.openai.api_server"
_RETRY_SECONDS = 0.5
# Seconds for a server to end by itself; a container's stop must allow for it.
_STOP_SECONDS = 10.0
_KILL_SECONDS = 10.0
_POLL_SECONDS = 0.02
_BETWEEN_CORE_LOOKS = 0.2
# Seconds for a server that cannot be reached to be found dead: its socket closes before it ends.
_DYING_SECONDS = 3.0

Serve = Callable[[Sequence[str]], None]
"""Serves until a signal; called in a process of its own, so it must be importable by name."""


def serve_vllm(flags: Sequence[str]) -> None:
    """Be vLLM's server."""
    from vllm.utils.system_utils import set_process_title

    from stepback_server.engine.vllm_dtype import supported_dtype

    # vLLM writes VLLM:: in front, so ps shows what it is.
    set_process_title("Server")
    sys.argv = [SERVER, *flags]
    dtype = sys.argv.index("--dtype") + 1
    sys.argv[dtype] = supported_dtype(sys.argv[dtype])
    runpy.run_module(SERVER, run_name="__main__", alter_sys=True)


class ServerProcess:
    """A server, and every process that it starts: they are killed together, and none of them
    outlives this process."""

    def __init__(self, serve: Serve, flags: Sequence[str], *, fork_cores: bool = False) -> None:
        # Not forked from here: the supervisor has threads and an event loop.
        self._process = server_context().Process(
            target=_serve_alone, args=(serve, flags, fork_cores), name="server"
        )
        self._output = Output()
        with self._output.capture():
            self._process.start()

    @property
    def has_ended(self) -> bool:
        return self._process.exitcode is not None

    def death(self) -> Death | None:
        """Tell how it or its engine core ended; None while both live. Blocks for a moment."""
        lines = self._output.last_lines()
        # The core's end is the reason for the server's.
        written = "\n".join(lines)
        cause = reported_cause(written) or failed_cores(written)
        if cause is None and (status := self._process.exitcode) is not None:
            cause = cause_of(status)
        return Death(cause, lines) if cause is not None else None

    def stop(self) -> None:
        """Ask it to end, and kill what is left after a while."""
        self._process.terminate()
        self._process.join(_STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Returns when all are gone, and with them what they held of the memory of a device."""
        pid = self._process.pid
        assert pid is not None
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        # It may not have had the time to make a group of its own.
        self._process.kill()
        self._process.join()
        deadline = time.monotonic() + _KILL_SECONDS
        while _is_left(pid) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)


def _is_left(group: int) -> bool:
    """True if a process of a group is left, once those are collected that we are to collect: as
    the first process of a container we inherit them."""
    with suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _serve_alone(serve: Serve, flags: Sequence[str], fork_cores: bool) -> None:
    # A group of its own, so that all of its processes can be killed at once.
    os.setsid()
    if fork_cores:
        start_fork_server()
    die_with_parent()
    threading.Thread(target=_report_core, name="core-report", daemon=True).start()
    serve(flags)


def _report_core() -> None:
    """Write how the engine core of this process ended: vLLM's server keeps that to itself."""
    cores = CoreProcesses()
    while (status := cores.status()) is None:
        time.sleep(_BETWEEN_CORE_LOOKS)
    if status:
        sys.stderr.write(f"{core_report(status)}\n")


class ChildEngine:
    """The engine seam over a server that is ours to end."""

    def __init__(self, replica: RemoteEngine, process: ServerProcess) -> None:
        self._replica = replica
        self._process = process
        self.version = replica.version

    async def check(self) -> None:
        async with self._explaining():
            if self._process.has_ended:
                raise EngineUnavailable("vLLM's server has ended")
            await self._replica.check()

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        async with self._explaining():
            await self._replica.sample(request, stop, deliver)

    @asynccontextmanager
    async def _explaining(self) -> AsyncGenerator[None]:
        """Raise the server's death where it is the reason for an error, or else that error."""
        try:
            yield
        except EngineUnavailable as error:
            deadline = time.monotonic() + _DYING_SECONDS
            while (death := await asyncio.to_thread(self._process.death)) is None:
                if time.monotonic() >= deadline:
                    raise
                await asyncio.sleep(_POLL_SECONDS)
            raise EngineUnavailable.of_death(death) from error

    async def running(self) -> int:
        async with self._explaining():
            return await self._replica.running()

    async def progress(self) -> int:
        async with self._explaining():
            return await self._replica.progress()

    async def reload(self, checkpoint: Path) -> bool:
        return await self._replica.reload(checkpoint)

    async def close(self, *, kill: bool) -> None:
        await self._replica.close(kill=kill)
        await asyncio.to_thread(self._process.kill if kill else self._process.stop)


class VllmLauncher:
    """Starts a server on request, always on the same address."""

    def __init__(
        self,
        serve: Serve,
        flags: Sequence[str],
        url: str,
        expected: ExpectedServer,
        *,
        fork_cores: bool = False,
    ) -> None:
        self._serve = serve
        self._flags = flags
        self._fork_cores = fork_cores
        self._url = url
        self._expected = expected
        self._given_up = threading.Event()

    def start(self) -> ChildEngine:
        """A server that answers; blocks for as long as it loads, unless `give_up` is called.
        Raises EngineUnavailable where it ends instead, EngineError where it answers as another than
        expected."""
        process = ServerProcess(self._serve, self._flags, fork_cores=self._fork_cores)
        try:
            return ChildEngine(self._connect(process), process)
        except BaseException:
            process.kill()
            raise

    def give_up(self) -> None:
        """End a start that is under way, and every later one."""
        self._given_up.set()

    def _connect(self, process: ServerProcess) -> RemoteEngine:
        # A server that loads refuses connections: only its end tells that it will never come.
        while not self._given_up.wait(_RETRY_SECONDS):
            if process.has_ended and (death := process.death()):
                raise EngineUnavailable.of_death(death)
            with suppress(EngineUnavailable):
                return RemoteEngine.connect(self._url, self._expected)
        raise EngineError("the start was given up")
