"""Refusals of requests before they reach an engine, by the real checkpoint's parts."""

import asyncio
import dataclasses

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


def test_a_sudoku_whose_answer_no_branch_can_hold_is_refused_at_once() -> None:
    solver = Solver(Checkpoint.open(CHECKPOINT), Settings())
    empty = {"task": "sudoku", "problem": {"rows": ["." * 9] * 9}}
    with pytest.raises(ApiError, match="at least 81 steps") as refused:
        accept(solver, SolveRequest.model_validate(empty))
    assert refused.value.code == "problem_too_long"
