"""A plug-in's worker process, seen from its parent."""

import itertools
import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from stepback_core.errors import InvalidInput
from stepback_core.isolation.failures import CheckerFailure, FailureKind
from stepback_core.tasks.plugins import VARIABLE

_SECONDS_TO_START = 120.0
_SECONDS_TO_ANSWER = 30.0
"""Time on top of a call's limit: a worker that is silent for longer hangs, and is killed."""
_LONGEST_PAUSE = 60.0
_MOST_DOUBLINGS = 6
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LANG", "LC_ALL", "TZ")
"""Variables that a worker inherits: the rest of the environment has keys and passwords in it."""
_SETTINGS = {
    "PYTHONDONTWRITEBYTECODE": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
"""A worker that forks must have one thread."""

Fields = dict[str, Any]
Observe = Callable[[float, FailureKind | None], None]
"""Function that is handed the seconds of each call, its wait included, and its failure."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one call."""

    seconds: float = 2.0
    memory_bytes: int = 1 << 30


@dataclass(slots=True)
class _Running:
    """One process, and the calls that it has not answered."""

    process: subprocess.Popen[bytes]
    hello: Future[Fields] = field(default_factory=Future[Fields])
    pending: dict[str, Future[Fields]] = field(default_factory=dict[str, Future[Fields]])


class Worker:
    """One plug-in's process: started at once or with the first call, and again where it ends.

    `submit` neither waits nor raises, from any thread; a call's failure is its future's
    CheckerFailure.
    """

    def __init__(
        self,
        name: str,
        limits: Limits = Limits(),
        observe: Observe = lambda seconds, failure: None,
    ) -> None:
        self.name = name
        self.limits = limits
        self.observe = observe
        self.starts = 0
        self._names = itertools.count()
        self._calls: queue.SimpleQueue[tuple[Fields, Future[Fields]] | None] = queue.SimpleQueue()
        self._running: _Running | None = None
        self._lost = 0
        """Processes in a row that ended without an answer to any call."""
        self._not_before = 0.0
        self._is_closed = False
        self._writer = threading.Thread(target=self._write, name=f"checker-{name}", daemon=True)
        self._writer.start()

    @property
    def process_id(self) -> int | None:
        """The process that runs now; None if there is none."""
        running = self._running
        return None if running is None else running.process.pid

    def start(self) -> Fields:
        """Start the process and return what it says of its plug-in. Raises InvalidInput."""
        return self._start().hello.result()

    def submit(self, call: Fields) -> Future[Fields]:
        """Ask for an answer; see `calls.answer` for what it may be."""
        future: Future[Fields] = Future()
        begun = time.monotonic()

        def done(ended: Future[Fields]) -> None:
            if not ended.cancelled():
                failure = ended.exception()
                kind = failure.kind if isinstance(failure, CheckerFailure) else None
                self.observe(time.monotonic() - begun, kind)

        future.add_done_callback(done)
        self._calls.put((call, future))
        return future

    def close(self) -> None:
        """End the process; calls that come later fail."""
        self._is_closed = True
        self._calls.put(None)
        self._writer.join()
        if self._running is not None:
            _end(self._running.process)

    def _write(self) -> None:
        """Hand calls to the process, in a thread: a pipe that is full would stop an event loop."""
        while (item := self._calls.get()) is not None:
            call, future = item
            # A caller that has given up costs nothing.
            if not future.set_running_or_notify_cancel():
                continue
            name = str(next(self._names))
            try:
                running = self._running_or_new()
                running.pending[name] = future
                assert running.process.stdin is not None
                running.process.stdin.write(f"{name} {json.dumps(call)}\n".encode())
                running.process.stdin.flush()
            except CheckerFailure as failure:
                _fail(future, failure)
            except (OSError, ValueError):
                # The pipe has broken, or was closed just now.
                _fail(future, _ended())

    def _running_or_new(self) -> _Running:
        if self._running is not None and self._running.process.poll() is None:
            return self._running
        pause = self._not_before - time.monotonic()
        if self._is_closed or pause > 0:
            again = "" if self._is_closed else f"; it is tried again in {pause:.0f} s"
            raise CheckerFailure(FailureKind.UNAVAILABLE, f"its worker does not stay up{again}")
        try:
            return self._start()
        except InvalidInput as error:
            self._count_a_loss()
            raise CheckerFailure(FailureKind.UNAVAILABLE, str(error)) from error

    def _start(self) -> _Running:
        """Start a process. Raises InvalidInput where it does not load its plug-in."""
        self.starts += 1
        process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "stepback_core.isolation.host", self.name),
                *(str(self.limits.seconds), str(self.limits.memory_bytes)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | _SETTINGS,
            # Signals of a terminal are for the parent, which ends it.
            start_new_session=True,
        )
        running = _Running(process)
        threading.Thread(target=self._read, args=(running,), daemon=True).start()
        try:
            hello = running.hello.result(_SECONDS_TO_START)
        except (TimeoutError, CheckerFailure) as error:
            _end(process)
            what = "does not load" if isinstance(error, TimeoutError) else "ends while it loads"
            raise InvalidInput(f"{VARIABLE}: {self.name} {what}") from error
        if "error" in hello:
            _end(process)
            raise InvalidInput(hello["error"])
        self._running = running
        return running

    def _read(self, running: _Running) -> None:
        """Pass answers on until the process ends or hangs, in a thread."""
        assert running.process.stdout is not None
        for line in _lines(running, self.limits.seconds + _SECONDS_TO_ANSWER):
            fields: Fields = json.loads(line)
            if not running.hello.done():
                running.hello.set_result(fields)
            elif (future := running.pending.pop(fields.pop("name"), None)) is not None:
                self._lost = 0
                _finish(future, fields)
        _end(running.process)
        _close(running.process)
        if running.hello.done() and not self._is_closed:
            self._count_a_loss()
        for future in [running.hello, *running.pending.values()]:
            _fail(future, _ended())

    def _count_a_loss(self) -> None:
        """Wait before the next start, longer after each process that answered nothing."""
        self._lost += 1
        # The exponent is bounded, since a float overflows after a day of losses.
        doubled = 2.0 ** min(self._lost - 1, _MOST_DOUBLINGS)
        self._not_before = time.monotonic() + min(_LONGEST_PAUSE, doubled - 1)


def _lines(running: _Running, patience: float) -> Iterator[bytes]:
    """Lines of the process as they come, until it ends, or leaves a call without an answer."""
    assert running.process.stdout is not None
    out, rest = running.process.stdout.fileno(), b""
    # Not select(2), which takes no descriptor above 1,023: a busy server has more.
    poll = select.poll()
    poll.register(out, select.POLLIN)
    while True:
        if not poll.poll(patience * 1000):
            if running.pending:
                return
            continue
        content = os.read(out, 1 << 16)
        if not content:
            return
        *lines, rest = (rest + content).split(b"\n")
        yield from lines


def _finish(future: Future[Fields], fields: Fields) -> None:
    if "failed" in fields:
        _fail(future, _failure_of(fields))
    else:
        with suppress(InvalidStateError):
            future.set_result(fields)


def _failure_of(fields: Fields) -> CheckerFailure:
    detail, verdicts = str(fields.get("detail", "")), fields.get("verdicts", ())
    try:
        return CheckerFailure(FailureKind(fields["failed"]), detail, verdicts)
    except ValueError:
        return CheckerFailure(FailureKind.BROKEN, "a failure of an unknown kind")


def _ended() -> CheckerFailure:
    return CheckerFailure(FailureKind.CRASHED, "its worker has ended")


def _fail(future: Future[Fields], failure: CheckerFailure) -> None:
    with suppress(InvalidStateError):
        future.set_exception(failure)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _close(process: subprocess.Popen[bytes]) -> None:
    """Close the pipes, in the thread that reads from them: no other may meanwhile."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
