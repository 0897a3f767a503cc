"""The loop of a worker: a job a line on standard input, its answers a line on standard output.

Runs in a peer's own environment, which has pydantic and, by its path, `stepback_core`.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stepback_core.tasks import CountdownProblem
from stepback_core.tasks.countdown.checker import Countdown

CHECKER = Countdown()
Answer = tuple[str | None, str | None]
"""A text, or why there is none."""


@dataclass(frozen=True)
class Job:
    """Problems for one search, so many at once."""

    url: str
    model: str
    in_flight: int
    method: str
    options: dict[str, Any]
    problems: list[CountdownProblem]

    @classmethod
    def read(cls, line: str) -> "Job":
        body = json.loads(line)
        problems = [CountdownProblem(**each) for each in body.pop("problems")]
        return cls(problems=problems, **body)


def steps_of(text: str) -> list[str]:
    return text.strip("\n").split("\n")


def is_right(problem: CountdownProblem, text: str | None) -> bool:
    return bool(text) and CHECKER.check(problem, steps_of(text or "")).strict


def reason(error: BaseException) -> str:
    """One line of an error."""
    cause = error.__cause__ or error
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}"


def serve(solve: Callable[[Job], list[Answer]]) -> None:
    """Answer jobs until the input ends."""
    # Whatever a library prints goes to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        job = Job.read(line)
        started = time.monotonic()
        found = solve(job)
        body = {"answers": found, "seconds": time.monotonic() - started}
        print(json.dumps(body), file=answers, flush=True)
