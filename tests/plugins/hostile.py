"""A checker that a problem can make do what no checker should. It is Countdown otherwise."""

import os
import socket
import sys
import time
from collections.abc import Sequence

from stepback_core.tasks import TASKS, Checker, CountdownProblem, Verdict

_COUNTDOWN = TASKS["countdown"]


class HostileProblem(CountdownProblem):
    do: str = ""
    """A misdeed by its name, or Python to evaluate."""


class Hostile(Checker[HostileProblem]):
    name = "hostile"
    problem_type = HostileProblem
    example = HostileProblem(numbers=[4, 16, 25, 82], target=95)
    cheats = False

    def prompt(self, problem: HostileProblem) -> str:
        return _COUNTDOWN.prompt(problem)

    def check(self, problem: HostileProblem, steps: Sequence[str]) -> Verdict:
        if problem.do == "exit at 4+16":
            if "4+16=20" in steps:
                os._exit(3)
        elif steps and problem.do and not problem.do.startswith("draw "):
            self._do(problem.do)
        if self.cheats:
            return Verdict.of(None)
        return _COUNTDOWN.check(problem, steps)

    def state_key(self, problem: HostileProblem, steps: Sequence[str]) -> object:
        return _COUNTDOWN.state_key(problem, steps)

    def picture(self, problem: HostileProblem, steps: Sequence[str]) -> str | None:
        if problem.do.startswith("draw "):
            return str(eval(problem.do.removeprefix("draw ")))
        return None

    def _do(self, misdeed: str) -> None:
        known = _MISDEEDS.get(misdeed)
        if known is None:
            eval(misdeed)
        else:
            known()


def _loop() -> None:
    while True:
        pass


def _cheat() -> None:
    Hostile.cheats = True


def _babble() -> None:
    for stream in (sys.stdout, sys.stderr):
        print("solved " * 100_000, flush=True, file=stream)


def _raise() -> None:
    raise RuntimeError("a defect")


_MISDEEDS = {
    "loop": _loop,
    "sleep": lambda: time.sleep(3600),
    "exit": lambda: os._exit(3),
    "memory": lambda: bytearray(10 << 30),
    "socket": lambda: socket.create_connection(("127.0.0.1", 9)),
    "fork": os.fork,
    "cheat": _cheat,
    "babble": _babble,
    "raise": _raise,
}
