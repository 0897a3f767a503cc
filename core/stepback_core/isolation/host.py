"""The worker's own program: it loads one plug-in, and gives every call a fork.

python -P -m stepback_core.isolation.host NAME SECONDS MEMORY_BYTES

Calls come as JSON lines on standard input, answers go as JSON lines to standard output. The worker
itself reads no text of a model: a call's line is read by its fork.
"""

import gc
import json
import os
import selectors
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from stepback_core.errors import InvalidInput
from stepback_core.isolation.calls import describe
from stepback_core.isolation.confinement import Confinement
from stepback_core.isolation.failures import FailureKind
from stepback_core.isolation.fork import Fork
from stepback_core.tasks.base import Checker
from stepback_core.tasks.plugins import find, load_checker

AT_ONCE = 4
"""Calls at a time; more wait in order."""
READY = 2
"""Forks that wait for a call: it does not wait for a fork then, unless several come at once."""
_SECONDS_AT_FULL_PRIORITY = 0.2
"""A call that takes more of a processor yields to everything else. One that only waits for its turn
on a busy machine does not: it would wait for ever."""
_LOWEST_PRIORITY = 19


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
        self._ready: deque[Fork] = deque()
        self._keeps_ready = True
        self._at_work = 0
        self._forks: dict[int, Fork] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(calls, selectors.EVENT_READ)
        self._rest = b""

    def run(self) -> None:
        while True:
            while self._waiting and self._at_work < AT_ONCE:
                self._begin(self._waiting.popleft())
            # After the calls that have come: these shall not wait for forks of later ones.
            while self._keeps_ready and len(self._ready) < READY:
                self._fork()
            for key, _ in self._selector.select(self._seconds_to_wait()):
                if key.fd == self._calls:
                    if not self._take_calls():
                        return self._stop()
                else:
                    self._hear(self._forks[key.fd])
            self._watch_the_clock()

    def _take_calls(self) -> bool:
        content = os.read(self._calls, 1 << 16)
        *lines, self._rest = (self._rest + content).split(b"\n")
        self._waiting.extend(lines)
        return bool(content)

    def _fork(self) -> None:
        fork = Fork.ahead(self._checker, self._confinement)
        self._forks[fork.answers] = fork
        self._selector.register(fork.answers, selectors.EVENT_READ)
        self._ready.append(fork)

    def _begin(self, line: bytes) -> None:
        if not self._ready:
            self._fork()
        # A line is `NAME JSON`: the JSON, with a caller's texts in it, is for the fork to read.
        name, _, call = line.partition(b" ")
        self._at_work += 1
        self._ready.popleft().begin(name.decode("ascii"), call)

    def _hear(self, fork: Fork) -> None:
        if not fork.hear():
            self._end(fork)
        elif fork.has_said_too_much:
            self._end(fork, FailureKind.BROKEN, "an answer of more than a mebibyte")

    def _watch_the_clock(self) -> None:
        now = time.monotonic()
        for fork in [*self._busy]:
            if now >= fork.begun + self._confinement.seconds:
                limit = f"no answer within {self._confinement.seconds:g} s"
                self._end(fork, FailureKind.TIMEOUT, limit)
            elif not fork.is_slow and fork.seconds_of_processor >= _SECONDS_AT_FULL_PRIORITY:
                fork.is_slow = True
                os.setpriority(os.PRIO_PROCESS, fork.pid, _LOWEST_PRIORITY)

    @property
    def _busy(self) -> Iterator[Fork]:
        return (fork for fork in self._forks.values() if fork.name)

    def _seconds_to_wait(self) -> float | None:
        """Seconds until a call may reach one of its limits; None while there is none."""
        now = time.monotonic()
        left: list[float] = []
        for fork in self._busy:
            left.append(fork.begun + self._confinement.seconds - now)
            if not fork.is_slow:
                # It has one processor at most, so no sooner than this.
                left.append(_SECONDS_AT_FULL_PRIORITY - fork.seconds_of_processor)
        return max(0.0, min(left)) if left else None

    def _end(self, fork: Fork, kind: FailureKind | None = None, detail: str = "") -> None:
        """End a fork, and all that it may have started, and tell its answer or its failure."""
        self._selector.unregister(fork.answers)
        del self._forks[fork.answers]
        status = fork.end()
        if not fork.name:
            # For want of memory, perhaps: it is not replaced until a call has been answered.
            self._ready.remove(fork)
            self._keeps_ready = False
            return
        self._at_work -= 1
        self._keeps_ready |= bool(fork.said)
        told = fork.cut_short(kind, detail) if kind else fork.told(status)
        self.tell({**told, "name": fork.name})

    def tell(self, fields: dict[str, Any]) -> None:
        """Write one line to the parent process."""
        line = json.dumps(fields).encode() + b"\n"
        while line:
            line = line[os.write(self._answers, line) :]

    def _stop(self) -> None:
        for fork in self._forks.values():
            fork.end()


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
