"""A request's problem, as its task reads it: here, or in a plug-in's worker."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from stepback_core.isolation import CheckerFailure, FailureKind, IsolatedChecker
from stepback_core.tasks import Checker, Verdict
from stepback_core.trace import TraceCodec
from stepback_server.errors import ApiError, invalid
from stepback_server.search.strategy import StateView
from stepback_server.search.task_view import TaskView
from stepback_server.solve.isolated import IsolatedReview, ask

_SECONDS_TO_RETRY = 5


@dataclass(frozen=True, slots=True)
class ReadProblem:
    """A prompt, and what its task offers a search; of a bare prompt nothing."""

    prompt: str
    problem: BaseModel | None = None
    check: Callable[[Sequence[str]], Verdict] | None = None
    view: StateView | None = None
    shortest: Sequence[str] = ()
    """Steps that are no longer than those of any right answer; none if the task cannot tell."""
    review: IsolatedReview | None = None
    """The verdicts that the search must await."""


async def read_problem(
    task: Checker[Any], fields: object, steps: Sequence[str], codec: TraceCodec
) -> ReadProblem:
    """Check and read a problem, and the states after given steps. Raises ApiError."""
    if isinstance(task, IsolatedChecker):
        return await _read_in_worker(task, fields, steps, codec)
    try:
        problem: BaseModel = task.problem_type.model_validate(fields)
    except ValidationError as error:
        raise invalid(error.errors(), under="problem") from error
    # Not a member of the interface: most tasks cannot tell.
    shortest: Callable[[Any], list[str]] | None = getattr(task, "shortest_answer", None)
    return ReadProblem(
        task.prompt(problem),
        problem,
        lambda steps: task.check(problem, steps),
        TaskView(task, problem, codec),
        shortest(problem) if shortest else (),
    )


def _what_was_read(told: dict[str, Any]) -> tuple[str, dict[str, Any], list[str]]:
    prompt, problem, shortest = (told.get(name) for name in ("prompt", "problem", "shortest"))
    if isinstance(prompt, str) and isinstance(problem, dict) and _are_texts(shortest):
        return prompt, cast("dict[str, Any]", problem), cast("list[str]", shortest)
    raise CheckerFailure(FailureKind.BROKEN, "a problem of another form")


def _are_texts(told: object) -> bool:
    return isinstance(told, list) and all(
        isinstance(each, str) for each in cast("list[object]", told)
    )


async def _read_in_worker(
    task: IsolatedChecker, fields: object, steps: Sequence[str], codec: TraceCodec
) -> ReadProblem:
    call = {"do": "read", "problem": fields}
    try:
        told = await ask(task, call)
        prompt, problem, shortest = _what_was_read(told["value"])
    except CheckerFailure as failure:
        raise ApiError(
            "checker_failed",
            f"the task's plug-in gave no prompt: {failure}",
            retry_after=_SECONDS_TO_RETRY,
        ) from failure
    review = IsolatedReview(task, problem, codec)
    if task.knows_states:
        # The empty beginning too: the search asks for the root's state.
        await review.look([tuple(steps[:length]) for length in range(len(steps) + 1)])
    return ReadProblem(
        prompt, task.problem_type.model_validate(problem), review.check, review, shortest, review
    )
