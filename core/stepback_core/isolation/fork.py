"""A confined process: it is forked ahead of its call, answers it, and ends."""

import fcntl
import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

from stepback_core.isolation.calls import Fields, answer
from stepback_core.isolation.confinement import Confinement
from stepback_core.isolation.failures import FailureKind
from stepback_core.tasks.base import Checker

_ANSWERS, _CALL, _START = 250, 251, 252
"""The files of a fork, by numbers that nothing else has."""
_LONGEST_ANSWER = 1 << 20
_MOST_LINES = 4096


@dataclass(slots=True)
class Fork:
    """A process that waits for its call, or is at work on it."""

    pid: int
    answers: int
    """The pipe that it writes to, a line for each verdict and one for the rest."""
    call: int
    """The memory that its call is put into: unlike a pipe it takes any length at once."""
    start: int
    """The pipe that it reads a byte from before it reads its call."""
    name: str = ""
    """The call's, as the bytes of its line say it; empty before there is one."""
    begun: float = 0.0
    processor_at_begin: float = 0.0
    is_slow: bool = False
    said: bytearray = field(default_factory=bytearray)

    @classmethod
    def ahead(cls, checker: Checker[Any], confinement: Confinement) -> "Fork":
        """Fork now, for a call to come."""
        answers, answering = os.pipe()
        starting, start = os.pipe()
        call = os.memfd_create("call")
        pid = os.fork()
        if pid == 0:
            _work(checker, confinement, (answering, call, starting))
        os.close(answering)
        os.close(starting)
        return cls(pid, answers, call, start)

    def begin(self, name: str, call: bytes) -> None:
        """Hand the call over; its seconds begin."""
        self.name, self.begun = name, time.monotonic()
        self.processor_at_begin = self._seconds_of_processor()
        while call:
            call = call[os.write(self.call, call) :]
        # It may have been killed meanwhile: its pipe of answers will say so.
        with suppress(BrokenPipeError):
            os.write(self.start, b"!")

    @property
    def seconds_of_processor(self) -> float:
        """Seconds of a processor that its call has had; those of a clock where the system does not
        tell."""
        return self._seconds_of_processor() - self.processor_at_begin

    def _seconds_of_processor(self) -> float:
        try:
            # The clock that clock_getcpuclockid gives on Linux, which Python does not offer.
            return time.clock_gettime(~self.pid << 3 | 2)
        except OSError:
            return time.monotonic()

    def hear(self) -> bool:
        """Read what it says; False at its end."""
        part = os.read(self.answers, 1 << 16)
        self.said += part
        return bool(part)

    @property
    def has_said_too_much(self) -> bool:
        return len(self.said) > _LONGEST_ANSWER

    def end(self) -> int:
        """End it, and all that it may have started; how it ended."""
        for file in (self.answers, self.call, self.start):
            os.close(file)
        for kill in (os.killpg, os.kill):
            with suppress(ProcessLookupError):
                kill(self.pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def told(self, status: int) -> Fields:
        """Return its answer or its failure, with the verdicts that it gave before."""
        verdicts, rest = self._verdicts_and_rest()
        try:
            fields: object = json.loads(rest) if rest.strip() else None
        except (ValueError, RecursionError):
            fields = failure(FailureKind.BROKEN, "an answer that is no JSON")
        if fields is None:
            fields = _death(status)
        elif not isinstance(fields, dict):
            fields = failure(FailureKind.BROKEN, "an answer of another form")
        return {**cast("Fields", fields), "verdicts": verdicts}

    def cut_short(self, kind: FailureKind, detail: str) -> Fields:
        """Return the failure of a call that was ended, with the verdicts that it gave before."""
        return failure(kind, detail) | {"verdicts": self._verdicts_and_rest()[0]}

    def _verdicts_and_rest(self) -> tuple[list[object], bytes]:
        """The lines with a list, and what was said after them."""
        verdicts = list[object]()
        lines = bytes(self.said).split(b"\n", _MOST_LINES)
        for line in lines[:-1]:
            if not line.startswith(b"["):
                break
            try:
                verdicts.append(json.loads(line))
            except (ValueError, RecursionError):
                break
        return verdicts, b"\n".join(lines[len(verdicts) :])


def failure(kind: FailureKind, detail: str) -> Fields:
    """Return the fields of a call that has no answer."""
    return {"failed": kind, "detail": detail}


def _death(status: int) -> Fields:
    if status == -signal.SIGSYS:
        return failure(FailureKind.FORBIDDEN, "a system call that is not allowed")
    if status == -signal.SIGXCPU:
        return failure(FailureKind.TIMEOUT, "more seconds of a processor than a call may take")
    how = f"signal {-status}" if status < 0 else f"exit status {status}"
    return failure(FailureKind.CRASHED, f"its process ended by {how}")


def _work(checker: Checker[Any], confinement: Confinement, files: tuple[int, int, int]) -> NoReturn:
    """Answer one call in this fork, and end it."""
    try:
        os.setsid()
        for place, file in enumerate(files, start=_ANSWERS):
            fcntl.fcntl(file, fcntl.F_DUPFD, place)
        os.closerange(_START + 1, 1 << 16)
        os.closerange(3, _ANSWERS)
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        os.close(nothing)
        _answer(checker, confinement)
    finally:
        # Whatever is raised: nothing of the worker's own may go on in a fork.
        os._exit(1)


def _answer(checker: Checker[Any], confinement: Confinement) -> None:
    leave, write = os._exit, os.write

    def tell(fields: object) -> None:
        content = json.dumps(fields).encode() + b"\n"
        while content:
            content = content[write(_ANSWERS, content) :]

    def say(fields: Fields) -> None:
        tell(fields)
        leave(0)

    confinement.enter(lambda event: say(failure(FailureKind.FORBIDDEN, f"it tried {event}")))
    if not os.read(_START, 1):
        leave(0)
    call = os.pread(_CALL, os.fstat(_CALL).st_size, 0)
    os.closerange(_CALL, _START + 1)
    try:
        answered = answer(checker, json.loads(call), tell)
    except Exception as error:  # a plug-in may raise anything
        say(failure(FailureKind.RAISED, _name_of(error)))
    else:
        try:
            say(answered)
        except (TypeError, ValueError) as error:
            say(failure(FailureKind.BROKEN, f"an answer that is no JSON ({error})"))


def _name_of(error: Exception) -> str:
    name = type(error).__name__
    return name if isinstance(error, MemoryError) else f"{name}: {error}"
