"""The tasks, by name. A new task is one file and one line here."""

from typing import Any

from stepback_core.tasks.base import (
    ErrorKind,
    Reason,
    Split,
    Task,
    Verdict,
    is_test_input,
)
from stepback_core.tasks.countdown import Countdown, CountdownProblem

TASKS: dict[str, Task[Any]] = {
    "countdown": Countdown(),
}

__all__ = [
    "TASKS",
    "CountdownProblem",
    "ErrorKind",
    "Reason",
    "Split",
    "Task",
    "Verdict",
    "is_test_input",
]
