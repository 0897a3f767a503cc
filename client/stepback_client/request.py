"""The body of a search, from a problem in any of its forms and the options of the call."""

from collections.abc import Mapping
from typing import Any, TypedDict

from pydantic import BaseModel

from stepback_client.rows import plain
from stepback_core.schemas import Budget, Rollback, Sampling, Select, SolveRequest, Strategy
from stepback_core.tasks import TASKS

Problem = BaseModel | Mapping[str, Any] | None
"""A task's model, or its fields: a mapping, or a row of pandas, numpy or datasets."""


class SolveOptions(TypedDict, total=False):
    """Options of a search; the server has a default for each that is left out (see
    `SolveRequest`)."""

    task: str
    """The task of `problem`. If left out: the one task whose model the problem is, or fits."""
    prompt: str
    """Free text instead of a problem."""
    steps: list[str]
    """Steps to start from."""
    model: str
    strategy: Strategy | str
    breadth: int
    backtracks: int
    sampling: Sampling | str
    rollback: Rollback | str
    widening: bool
    greedy_first: bool
    ignore_marker: bool
    temperature: float
    seed: int
    select: Select | str
    scorer: str
    """A scorer of the server's, by its name."""
    tokens: int
    """Budget: generated tokens."""
    seconds: float
    """Budget: seconds of searching."""
    answer_tokens: int
    """Budget: tokens of one answer."""
    candidates: int
    tree: bool
    logprobs: bool
    """Return token ids and log-probabilities with the answers and the tree."""


def solve_body(problem: Problem, options: SolveOptions, *, stream: bool = False) -> dict[str, Any]:
    """The checked body of `POST /solve`. Raises pydantic's ValidationError."""
    fields: dict[str, Any] = plain(dict(options)) | ({"stream": True} if stream else {})
    budget = {name: fields.pop(name) for name in Budget.model_fields if name in fields}
    if problem is not None:
        fields["problem"] = (
            problem.model_dump(mode="json") if isinstance(problem, BaseModel) else plain(problem)
        )
        fields.setdefault("task", _task_of(problem, fields["problem"]))
    if budget:
        # A body of HTTP names its budget as a whole.
        fields["budget"] = (fields.get("budget") or {}) | budget
    request = SolveRequest.model_validate(fields)
    # What was left out stays out: a server's defaults may differ from those of this client's
    # version.
    return request.model_dump(mode="json", exclude_unset=True)


def seconds_of(body: Mapping[str, Any]) -> float | None:
    """The seconds that a checked body may be searched for, or None if it leaves that out."""
    return body.get("budget", {}).get("seconds")


def _task_of(problem: object, fields: object) -> str | None:
    """The one task whose model a problem is, or whose model takes these fields."""
    for name, task in TASKS.items():
        if isinstance(problem, task.problem_type):
            return name
    fitting = [name for name, task in TASKS.items() if _fits(task.problem_type, fields)]
    # Of two that fit neither is guessed: the server then says that a task is missing.
    return fitting[0] if len(fitting) == 1 else None


def _fits(kind: type[BaseModel], fields: object) -> bool:
    """Tell whether these are the fields of such a problem, be their values good or bad."""
    if not isinstance(fields, dict):
        return False
    required = {name for name, field in kind.model_fields.items() if field.is_required()}
    # By names alone: a bad value should be refused as a bad value, not as an unknown task.
    return required <= fields.keys() <= kind.model_fields.keys()
