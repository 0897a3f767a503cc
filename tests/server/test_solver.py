"""Refusals of requests before they reach an engine, by the real checkpoint's parts."""

import asyncio
import dataclasses
from typing import Any

import pytest

from stepback_core.schemas import SolveRequest
from stepback_server.checkpoint import Checkpoint
from stepback_server.errors import ApiError
from stepback_server.settings import Settings
from stepback_server.solve.order import AcceptedRequest
from stepback_server.solve.solver import Solver
from tests.conftest import CHECKPOINT


def accept(solver: Solver, request: SolveRequest) -> AcceptedRequest:
    return asyncio.run(solver.accept(request))


def test_a_model_of_traces_alone_knows_no_task_and_asks_for_a_prompt() -> None:
    opened = Checkpoint.open(CHECKPOINT)
    manifest = opened.manifest.model_copy(update={"tasks": []})
    solver = Solver(dataclasses.replace(opened, manifest=manifest), Settings())
    with pytest.raises(ApiError, match="no task by name; give a prompt") as refused:
        accept(solver, SolveRequest(task="maze", problem={}))
    assert refused.value.status == 404
    assert accept(solver, SolveRequest(prompt="countdown:3,5=15")).check is None


def test_a_branch_may_be_as_long_as_the_answers_of_its_task() -> None:
    opened = Checkpoint.open(CHECKPOINT)
    manifest = opened.manifest.model_copy(
        update={"answer_tokens": 90, "task_answer_tokens": {"countdown": 30}}
    )
    solver = Solver(dataclasses.replace(opened, manifest=manifest), Settings())
    problem = {"numbers": [3, 5], "target": 15}
    by_task = accept(solver, SolveRequest(task="countdown", problem=problem))
    bare = accept(solver, SolveRequest(prompt="countdown:3,5=15"))
    assert (by_task.limits.tokens_per_branch, bare.limits.tokens_per_branch) == (30, 90)


def grid(empty: int) -> dict[str, Any]:
    """A solved Sudoku with its first cells taken out."""
    row = "123456789"
    digits = "".join(row[3 * (r % 3) + r // 3 :] + row[: 3 * (r % 3) + r // 3] for r in range(9))
    digits = "." * empty + digits[empty:]
    return {"rows": [digits[start : start + 9] for start in range(0, 81, 9)]}


def corridor(cells: int) -> dict[str, Any]:
    """A maze that goes up and down: its only way enters every one of three rows' cells."""
    rows = [["#"] * (2 * cells + 1) for _ in range(7)]
    for column in range(cells):
        for row in range(1, 6):
            rows[row][2 * column + 1] = "."
        if column:
            rows[5 if column % 2 else 1][2 * column] = "."
    rows[1][1], rows[5 if cells % 2 else 1][2 * cells - 1] = "S", "G"
    return {"rows": ["".join(row) for row in rows]}


@pytest.mark.parametrize(
    ("task", "problem", "steps"),
    [
        ("sudoku", grid(81), 81),
        # A step takes four tokens, and the bundled checkpoint may write 73.
        ("sudoku", grid(18), None),
        ("sudoku", grid(19), 19),
        ("maze", corridor(9), None),
        ("maze", corridor(20), 59),
        ("countdown", {"numbers": [1, 2, 3, 4, 5, 6], "target": 21}, None),
    ],
)
def test_a_problem_whose_answer_no_branch_can_hold_is_refused_at_once(
    task: str, problem: dict[str, Any], steps: int | None
) -> None:
    solver = Solver(Checkpoint.open(CHECKPOINT), Settings())
    request = SolveRequest.model_validate({"task": task, "problem": problem})
    if steps is None:
        accept(solver, request)
        return
    said = f"at least {steps} steps, which are {4 * steps + 1} tokens"
    with pytest.raises(ApiError, match=said) as refused:
        accept(solver, request)
    assert refused.value.code == "problem_too_long"
