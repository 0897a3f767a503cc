"""The problem of a command line: a task with its fields, numbers for Countdown, or a prompt."""

import argparse
import codecs
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel

from stepback_client.request import SolveOptions
from stepback_core.errors import InvalidInput
from stepback_core.schemas import SolveResult
from stepback_core.tasks import TASKS, Checker, CountdownProblem

_USAGE = "give --task and --problem, or --prompt, or numbers and --target for Countdown"


@dataclass(frozen=True, slots=True)
class ProblemArguments:
    """A task's problem, or a prompt. A task that is not known here is the server's to check."""

    task: str | None = None
    problem: BaseModel | Mapping[str, Any] | None = None
    prompt: str | None = None

    @property
    def options(self) -> SolveOptions:
        """The part of the call's options that is the problem itself."""
        if self.prompt is not None:
            return {"prompt": self.prompt}
        return {"task": self.task} if self.task is not None else {}

    def picture(self, result: SolveResult) -> str | None:
        """The problem with the answer in it, where the task draws."""
        task = _known(self.task)
        if task is None:
            return None
        return task.picture(self.problem, result.answer.steps if result.answer else [])


def add_problem_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a problem, except `numbers`, which each command has in its own way."""
    parser.add_argument(
        "--task", metavar="NAME", help=f"the task of --problem: {', '.join(TASKS)}, or another "
        "one that the controller serves"
    )  # fmt: skip
    parser.add_argument(
        "--problem",
        metavar="JSON | FILE",
        help="the problem's fields: a JSON object, or a file with one; - for standard input",
    )
    parser.add_argument("--prompt", help="free text instead; there is no checker for its answer")
    parser.add_argument("--target", type=int, help="of Countdown: the target, 1..199")


def read_problem_arguments(given: argparse.Namespace) -> ProblemArguments:
    """The problem of a command line. Raises InvalidInput, OSError for a file that cannot be
    read, and pydantic's ValidationError for a problem that is none."""
    asked = (bool(given.numbers), given.problem is not None, given.prompt is not None)
    if sum(asked) != 1 or (given.target is None) == bool(given.numbers):
        raise InvalidInput(_USAGE)
    if (given.task is None) == (given.problem is not None):
        raise InvalidInput(_USAGE)
    if given.prompt is not None:
        return ProblemArguments(prompt=given.prompt)
    if given.problem is None:
        problem = CountdownProblem(numbers=given.numbers, target=given.target)
        return ProblemArguments("countdown", problem)
    return ProblemArguments(given.task, _read_problem(given.task, given.problem))


def read_text(source: str) -> str:
    """The text of a file, `-` for standard input: UTF-8, or what a Windows shell writes with `>`.

    Raises OSError and UnicodeDecodeError."""
    content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    # PowerShell's > writes UTF-16, and editors on Windows put a mark before UTF-8.
    return content.decode("utf-16" if wide else "utf-8-sig")


def _read_problem(name: str, given: str) -> BaseModel | Mapping[str, Any]:
    # No file has a name that begins with a brace, or it can be written ./{name.
    text = given if given.lstrip().startswith("{") else read_text(given)
    task = _known(name)
    if task is not None:
        return cast("BaseModel", task.problem_type.model_validate_json(text))
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidInput(f"--problem is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidInput("--problem must be one JSON object")
    return cast("dict[str, Any]", fields)


def _known(name: str | None) -> Checker[Any] | None:
    return TASKS.get(name) if name is not None else None
