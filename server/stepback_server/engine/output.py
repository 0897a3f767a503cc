"""Output of an engine's processes: passed on to our own streams, its last lines kept."""

import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager, suppress

_KEPT_LINES = 8
# Whole lines of vLLM: what to do stands at their ends.
_LINE_CHARACTERS = 500
_CHUNK = 1 << 16
_DRAIN_SECONDS = 5.0
_POLL_SECONDS = 0.01
_STANDARD_OUTPUT, _STANDARD_ERROR = 1, 2
# File descriptors 1 and 2 belong to the whole process: one capture at a time.
_capturing = threading.Lock()


class Output:
    """The output of the processes that are started within `capture`."""

    def __init__(self) -> None:
        self._lines = deque[str](maxlen=_KEPT_LINES)
        self._pipes: list[_Pipe] = []

    @contextmanager
    def capture(self) -> Generator[None]:
        """Lead this process's standard output and error through pipes, which its children inherit.

        A child that dies before it runs a line of Python has no other way to be heard.
        """
        with _capturing:
            _flush()
            pipes = [_Pipe(number, self._lines) for number in (_STANDARD_OUTPUT, _STANDARD_ERROR)]
            self._pipes += pipes
            try:
                yield
            finally:
                _flush()
                for pipe in pipes:
                    pipe.restore()

    def last_lines(self) -> tuple[str, ...]:
        """The last lines, once all has been read that was written; blocks for a moment."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        while any(pipe.is_pending for pipe in self._pipes) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return tuple(self._lines)


class _Pipe:
    """Takes the place of a standard stream, and passes on what is written there."""

    def __init__(self, number: int, lines: deque[str]) -> None:
        self._number = number
        self._lines = lines
        # Kept open, so that what comes through the pipe can still be shown where it belongs.
        self._own = os.dup(number)
        self._reader, writer = os.pipe()
        os.dup2(writer, number)
        # Else the pipe would never end: this process would hold its own writing end for good.
        os.close(writer)
        self._reading = threading.Lock()
        self._has_ended = False
        self._partial = b""
        threading.Thread(target=self._pass_on, name="engine-output", daemon=True).start()

    def restore(self) -> None:
        """Give the stream back to this process; children keep the pipe."""
        os.dup2(self._own, self._number)

    @property
    def is_pending(self) -> bool:
        """Tell whether something was written that has not been read."""
        with self._reading:
            return not self._has_ended and _is_readable(self._reader, 0)

    def _pass_on(self) -> None:
        while not self._has_ended:
            _is_readable(self._reader, None)
            with self._reading:
                self._take(os.read(self._reader, _CHUNK))
        os.close(self._reader)
        os.close(self._own)

    def _take(self, data: bytes) -> None:
        # Whoever read our output may have gone; the engine must not block for it.
        with suppress(OSError):
            _write_all(self._own, data)
        self._has_ended = not data
        *ended, self._partial = (self._partial + (data or b"\n")).split(b"\n")
        # A process that writes without line ends would fill the memory.
        self._partial = self._partial[-_LINE_CHARACTERS:]
        self._lines += filter(None, map(_shown, ended))


def _is_readable(descriptor: int, seconds: float | None) -> bool:
    # Not select(2), which takes no descriptor above 1,023.
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds))


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _shown(line: bytes) -> str:
    return line.decode(errors="replace").strip()[:_LINE_CHARACTERS]


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # A process may have been started without them.
        with suppress(AttributeError, ValueError, OSError):
            stream.flush()
