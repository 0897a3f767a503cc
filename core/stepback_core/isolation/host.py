"""The worker's own program: it loads one plug-in, and forks for every call.

python -P -m stepback_core.isolation.host NAME SECONDS MEMORY_BYTES

Calls come as JSON lines on standard input, answers go as JSON lines to standard output. The worker
itself reads no text of a model: a call's line is read by its fork.
"""

import fcntl
import gc
import json
import os
import selectors
import signal
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

from stepback_core.errors import InvalidInput
from stepback_core.isolation.calls import answer, describe
from stepback_core.isolation.confinement import Confinement
from stepback_core.isolation.failures import FailureKind
from stepback_core.tasks.base import Checker
from stepback_core.tasks.plugins import find, load_checker

AT_ONCE = 4
"""Forks at a time; more calls wait in order."""
_LONGEST_ANSWER = 1 << 20
_SECONDS_AT_FULL_PRIORITY = 0.2
"""A call that takes longer yields the processors to everything else."""
_LOWEST_PRIORITY = 19


@dataclass(slots=True)
class _Fork:
    """A call at work."""

    name: str
    """The caller's, as the bytes of its line say it."""
    pid: int
    pipe: int
    begun: float = field(default_factory=time.monotonic)
    is_slow: bool = False
    said: bytearray = field(default_factory=bytearray)


class Host:
    """Runs calls until its input ends."""

    def __init__(
        self, checker: Checker[Any], confinement: Confinement, calls: int, answers: int
    ) -> None:
        self._checker = checker
        self._confinement = confinement
        self._calls = calls
        self._answers = answers
        self._waiting: deque[bytes] = deque()
        self._forks: dict[int, _Fork] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(calls, selectors.EVENT_READ)
        self._rest = b""

    def run(self) -> None:
        while True:
            for key, _ in self._selector.select(self._seconds_to_wait()):
                if key.fd == self._calls:
                    if not self._take_calls():
                        return self._stop()
                else:
                    self._hear(self._forks[key.fd])
            self._watch_the_clock()
            while self._waiting and len(self._forks) < AT_ONCE:
                self._begin(self._waiting.popleft())

    def _take_calls(self) -> bool:
        content = os.read(self._calls, 1 << 16)
        *lines, self._rest = (self._rest + content).split(b"\n")
        self._waiting.extend(lines)
        return bool(content)

    def _begin(self, line: bytes) -> None:
        # A line is `NAME JSON`: the JSON, with a caller's texts in it, is for the fork to read.
        name, _, call = line.partition(b" ")
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            _work(self._checker, self._confinement, call, writing)
        os.close(writing)
        self._forks[reading] = _Fork(name.decode("ascii"), pid, reading)
        self._selector.register(reading, selectors.EVENT_READ)

    def _hear(self, fork: _Fork) -> None:
        part = os.read(fork.pipe, 1 << 16)
        fork.said += part
        if len(fork.said) > _LONGEST_ANSWER:
            self._end(fork, FailureKind.BROKEN, "an answer of more than a mebibyte")
        elif not part:
            self._end(fork)

    def _watch_the_clock(self) -> None:
        now = time.monotonic()
        for fork in [*self._forks.values()]:
            if now >= fork.begun + self._confinement.seconds:
                limit = f"no answer within {self._confinement.seconds:g} s"
                self._end(fork, FailureKind.TIMEOUT, limit)
            elif not fork.is_slow and now >= fork.begun + _SECONDS_AT_FULL_PRIORITY:
                fork.is_slow = True
                os.setpriority(os.PRIO_PROCESS, fork.pid, _LOWEST_PRIORITY)

    def _seconds_to_wait(self) -> float | None:
        if not self._forks:
            return None
        limit = self._confinement.seconds
        ends = (
            each.begun + (limit if each.is_slow else min(limit, _SECONDS_AT_FULL_PRIORITY))
            for each in self._forks.values()
        )
        return max(0.0, min(ends) - time.monotonic())

    def _end(self, fork: _Fork, kind: FailureKind | None = None, detail: str = "") -> None:
        """End a fork, and all that it may have started, and tell its answer or its failure."""
        self._selector.unregister(fork.pipe)
        os.close(fork.pipe)
        del self._forks[fork.pipe]
        status = _kill(fork.pid)
        told = _failure(kind, detail) if kind else _what_was_said(bytes(fork.said), status)
        self.tell({"name": fork.name, **told})

    def tell(self, fields: dict[str, Any]) -> None:
        """Write one line to the process that asks."""
        line = json.dumps(fields).encode() + b"\n"
        while line:
            line = line[os.write(self._answers, line) :]

    def _stop(self) -> None:
        for fork in self._forks.values():
            _kill(fork.pid)


def _kill(pid: int) -> int:
    """Kill a fork and its process group; how it ended."""
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _failure(kind: FailureKind, detail: str) -> dict[str, str]:
    return {"failed": kind, "detail": detail}


def _what_was_said(said: bytes, status: int) -> dict[str, Any]:
    try:
        fields: object = json.loads(said) if said else None
    except (ValueError, RecursionError):
        return _failure(FailureKind.BROKEN, "an answer that is no JSON")
    if isinstance(fields, dict):
        return cast("dict[str, Any]", fields)
    if fields is not None:
        return _failure(FailureKind.BROKEN, "an answer of another form")
    if status == -signal.SIGSYS:
        return _failure(FailureKind.FORBIDDEN, "a system call that is not allowed")
    if status == -signal.SIGXCPU:
        return _failure(FailureKind.TIMEOUT, "more seconds of a processor than a call may take")
    how = f"signal {-status}" if status < 0 else f"exit status {status}"
    return _failure(FailureKind.CRASHED, f"its process ended by {how}")


def _work(checker: Checker[Any], confinement: Confinement, line: bytes, pipe: int) -> NoReturn:
    """Answer one call in this fork, and end it."""
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        out = fcntl.fcntl(pipe, fcntl.F_DUPFD, 250)
        os.closerange(3, 250)
        _answer(checker, confinement, line, out)
    finally:
        # Whatever is raised: nothing of the worker's own may go on in a fork.
        os._exit(1)


def _answer(checker: Checker[Any], confinement: Confinement, line: bytes, out: int) -> None:
    leave, write = os._exit, os.write

    def say(fields: dict[str, Any]) -> None:
        content = json.dumps(fields, ensure_ascii=True).encode()
        while content:
            content = content[write(out, content) :]
        leave(0)

    confinement.enter(lambda event: say(_failure(FailureKind.FORBIDDEN, f"it tried {event}")))
    try:
        answered = answer(checker, json.loads(line))
    except Exception as error:  # a plug-in may raise anything
        name = type(error).__name__
        say(
            _failure(
                FailureKind.RAISED, name if isinstance(error, MemoryError) else f"{name}: {error}"
            )
        )
    else:
        try:
            say(answered)
        except (TypeError, ValueError) as error:
            say(_failure(FailureKind.BROKEN, f"an answer that is no JSON ({error})"))


def main() -> int:
    """Load the plug-in that the command line names, and serve its calls."""
    name, seconds, memory = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    calls, answers = os.dup(0), os.dup(1)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    # What a plug-in prints goes to the log, not among the answers.
    os.dup2(2, 1)
    try:
        [plugin] = find([name])
        checker = load_checker(plugin)
        # Afterwards: loading may take threads and files, and knows no model's text.
        confinement = Confinement.prepare(memory, seconds)
        first = {"origin": plugin.origin, "means": confinement.means, **describe(checker)}
    except InvalidInput as error:
        os.write(answers, json.dumps({"error": str(error)}).encode() + b"\n")
        return 2
    host = Host(checker, confinement, calls, answers)
    host.tell(first)
    gc.collect()
    gc.freeze()
    host.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
