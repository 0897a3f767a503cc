"""What `stepback solve` is asked: a Countdown from flags, a problem from a file, or a prompt."""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from stepback_client.base import SolveOptions
from stepback_core.schemas import SolveResult
from stepback_core.tasks import TASKS, CountdownProblem, Task

_USAGE = "give numbers and --target, or --task and --problem, or --prompt"


class QuestionError(ValueError):
    """A command line that asks nothing, or several things at once."""


@dataclass(frozen=True, slots=True)
class Question:
    """A task's problem, or a prompt."""

    task: Task[Any] | None = None
    problem: BaseModel | None = None
    prompt: str | None = None

    @property
    def options(self) -> SolveOptions:
        return {} if self.prompt is None else {"prompt": self.prompt}

    def picture(self, result: SolveResult) -> str | None:
        """The problem with the answer in it, where the task draws."""
        if self.task is None:
            return None
        return self.task.picture(self.problem, result.answer.steps if result.answer else [])


def add_question_flags(parser: argparse.ArgumentParser) -> None:
    """All but `numbers`, Countdown's inputs, which each command has in its own way."""
    parser.add_argument("--target", type=int, help="of Countdown: the target, 1..199")
    parser.add_argument("--task", choices=[*TASKS], help="the task of --problem")
    parser.add_argument(
        "--problem", metavar="FILE", help="the problem's fields as JSON; - for standard input"
    )
    parser.add_argument("--prompt", help="free text instead; there is no checker for its answer")


def read_question(given: argparse.Namespace) -> Question:
    """The question of a command line. Raises QuestionError, OSError for a file that cannot be read,
    and pydantic's ValidationError for a problem that is none."""
    asked = (bool(given.numbers), given.problem is not None, given.prompt is not None)
    if sum(asked) != 1 or (given.target is None) == bool(given.numbers):
        raise QuestionError(_USAGE)
    if (given.task is None) == (given.problem is not None):
        raise QuestionError(_USAGE)
    if given.prompt is not None:
        return Question(prompt=given.prompt)
    if given.problem is None:
        problem = CountdownProblem(numbers=given.numbers, target=given.target)
        return Question(TASKS["countdown"], problem)
    text = sys.stdin.read() if given.problem == "-" else Path(given.problem).read_text("utf-8")
    task = TASKS[given.task]
    return Question(task, task.problem_type.model_validate_json(text))
