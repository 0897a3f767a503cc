"""Searches that a plug-in's checker judges: real checkpoint and worker, an engine from a script."""

import asyncio
import dataclasses
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from stepback_core.errors import InvalidInput
from stepback_core.schemas import SolveRequest, SolveResult, Status, StopReason
from stepback_core.tasks import TASKS
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import SampleRequest
from stepback_server.errors import ApiError
from stepback_server.plugins import plugins_of
from stepback_server.settings import Settings
from stepback_server.solve.solver import Solver
from tests.conftest import CHECKPOINT
from tests.core.test_isolation import MISDEEDS
from tests.plugins import install_hostile
from tests.server.search.scripted import ScriptedEngine

RIGHT = "16-4=12\n25-12=13\n82+13=95"
WRONG = "4+16=20\n25+20=45\n82+45=127"
PROBLEM: dict[str, Any] = {"numbers": [4, 16, 25, 82], "target": 95}


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The hostile checker, among the tasks of this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(install_hostile(tmp_path_factory.mktemp("hostile"))))
        with plugins_of(Settings(tasks=("hostile",), task_seconds=5.0)):
            yield


@pytest.fixture(scope="module")
def checkpoint(plugin: None) -> Checkpoint:
    opened = Checkpoint.open(CHECKPOINT)
    manifest = opened.manifest.model_copy(update={"tasks": ["countdown", "hostile"]})
    return dataclasses.replace(opened, manifest=manifest)


def writing(checkpoint: Checkpoint, answers: Sequence[str], delay: float = 0.0) -> ScriptedEngine:
    def write(request: SampleRequest, index: int) -> tuple[int, ...]:
        text = answers[index % len(answers)]
        steps = [checkpoint.codec.encode_step(step) for step in text.split("\n")]
        return (*(token for step in steps for token in step), checkpoint.codec.tokens.end_id)

    return ScriptedEngine(write, delay=delay)


async def solve(
    checkpoint: Checkpoint, answers: Sequence[str], do: str = "", delay: float = 0.0, **fields: Any
) -> SolveResult:
    solver = Solver(checkpoint, Settings())
    asked = {"task": "hostile", "problem": PROBLEM | {"do": do}, "strategy": "best_of_n"}
    request = {"breadth": 3, "candidates": 8, "widening": False}
    order = await solver.accept(SolveRequest.model_validate(asked | request | fields))
    return await solver.solve(order, writing(checkpoint, answers, delay), 0.0)


def test_the_worker_judges_and_its_verdict_ends_the_search(checkpoint: Checkpoint) -> None:
    result = asyncio.run(solve(checkpoint, [WRONG, RIGHT], seed=1))
    assert (result.status, result.stop_reason) == (Status.SOLVED, StopReason.SOLVED)
    assert result.answer is not None and result.answer.verified is True
    [refused] = [each for each in result.candidates if not each.verified]
    assert (refused.verified, refused.reason) == (False, "not_reached")


@pytest.mark.parametrize("do", MISDEEDS)
def test_a_misdeed_leaves_its_caller_unverified_and_the_others_solved(
    checkpoint: Checkpoint, do: str
) -> None:
    async def together() -> tuple[SolveResult, ...]:
        return await asyncio.gather(
            solve(checkpoint, [RIGHT], do),
            solve(checkpoint, [RIGHT]),
            solve(checkpoint, [RIGHT], task="countdown", problem=PROBLEM),
        )

    caller, same_task, other_task = asyncio.run(together())
    assert caller.status is Status.UNVERIFIED
    assert caller.answer is not None and caller.answer.verified is None
    assert (caller.answer.reason or "").startswith(MISDEEDS[do])
    assert same_task.status is other_task.status is Status.SOLVED


def test_one_answer_at_fault_costs_the_others_of_its_search_nothing(
    checkpoint: Checkpoint,
) -> None:
    result = asyncio.run(solve(checkpoint, [WRONG, RIGHT], "exit at 4+16", breadth=2))
    assert result.status is Status.SOLVED
    reasons = {each.verified: each.reason for each in result.candidates}
    assert reasons.keys() == {True, None} and "checker_crashed" in str(reasons[None])


def different_answer(index: int) -> str:
    """An answer that no other index has."""
    return f"4+16=20\n25+20=45\n82+45={100 + index}"


def test_a_checker_that_is_lost_ends_the_search_unverified(checkpoint: Checkpoint) -> None:
    async def together() -> tuple[SolveResult, SolveResult]:
        many = [different_answer(index) for index in range(64)]
        return await asyncio.gather(
            solve(checkpoint, many, "exit", delay=0.2, breadth=64),
            solve(checkpoint, [WRONG] * 20 + [RIGHT], delay=0.2, breadth=64),
        )

    lost, other = asyncio.run(together())
    assert (lost.status, lost.stop_reason) == (Status.UNVERIFIED, StopReason.CHECKER_FAILED)
    reasons = {each.reason for each in lost.candidates}
    assert any("checker_crashed" in str(reason) for reason in reasons), reasons
    # Of the 28 tokens that each of the 64 answers has.
    assert lost.usage.generated_tokens < 48 * 28
    assert other.stop_reason is StopReason.SOLVED


def test_a_search_whose_end_is_not_the_checkers_goes_on_without_it(checkpoint: Checkpoint) -> None:
    many = [different_answer(index) for index in range(12)]
    result = asyncio.run(
        solve(checkpoint, many, "exit", breadth=12, select="perplexity", delay=0.02)
    )
    assert (result.status, result.stop_reason) == (Status.UNVERIFIED, StopReason.EXHAUSTED)
    assert len(result.candidates) == 8


def test_a_call_that_has_come_some_way_blames_none_of_its_answers(checkpoint: Checkpoint) -> None:
    """One at fault among many: two more calls, and all others are judged."""
    many = [WRONG, *(different_answer(index) for index in range(5))]
    many = [text.replace("4+16=20", "16-4=12") for text in many[1:]] + [WRONG]
    result = asyncio.run(solve(checkpoint, many, "exit at 4+16", breadth=6))
    unjudged = [each for each in result.candidates if each.verified is None]
    assert [each.text for each in unjudged] == [WRONG]


@pytest.mark.parametrize(
    "said", ['{"value": {}}', '{"value": {"verdicts": [1]}}', '{"value": 3}', "[" * 3000]
)
def test_a_fork_that_was_taken_over_and_says_nonsense_solves_nothing(
    checkpoint: Checkpoint, said: str
) -> None:
    # The pipe of a fork has the first number from 250 on.
    do = f"(__import__('os').write(250, {said.encode()!r}), __import__('os')._exit(0))"
    result = asyncio.run(solve(checkpoint, [RIGHT], do, breadth=1))
    assert result.status is Status.UNVERIFIED and result.answer is not None
    assert (result.answer.reason or "").startswith("checker_broken"), result.answer.reason


@pytest.mark.parametrize(
    ("do", "picture"),
    [
        ("draw '\\n'.join(['+--+', '| <b>|', '+--+'])", "+--+\n| <b>|\n+--+"),
        ("draw 'a\\x1b[2Jb\\u202ec'", "a\ufffd[2Jb\ufffdc"),
        ("draw 'x' * 20_000", None),
        ("draw __import__('os')._exit(3)", None),
        ("draw __import__('socket').socket()", None),
        ("", None),
    ],
)
def test_a_picture_is_drawn_in_the_worker(
    checkpoint: Checkpoint, do: str, picture: str | None
) -> None:
    result = asyncio.run(solve(checkpoint, [RIGHT], do, breadth=1))
    assert result.status is Status.SOLVED
    assert result.picture == picture


def test_an_illegal_step_is_not_continued(checkpoint: Checkpoint) -> None:
    illegal = "4+4=8\n25+8=33\n82+33=115"
    result = asyncio.run(
        solve(checkpoint, [illegal], strategy="best_first", tree=True, budget={"tokens": 40})
    )
    assert result.tree is not None
    assert "illegal" in [node.outcome for node in result.tree]


def test_given_steps_are_checked_by_the_worker(checkpoint: Checkpoint) -> None:
    with pytest.raises(ApiError, match=r"does not allow '4\+4=8'"):
        asyncio.run(solve(checkpoint, [RIGHT], steps=["4+4=8"]))


def test_a_problem_is_checked_by_the_worker(checkpoint: Checkpoint) -> None:
    with pytest.raises(ApiError) as refused:
        asyncio.run(solve(checkpoint, [RIGHT], problem={"numbers": [4, 16], "target": 1000}))
    assert (refused.value.status, refused.value.body.error.param) == (422, "problem.target")


def test_a_plugin_shows_in_the_schema_of_a_request(plugin: None) -> None:
    forms = SolveRequest.model_json_schema()["oneOf"]
    [form] = [each for each in forms if each["properties"]["task"].get("const") == "hostile"]
    assert form["properties"]["problem"]["properties"]["do"]["type"] == "string"


def test_a_start_takes_its_plugins_away_at_its_end() -> None:
    with plugins_of(Settings()) as none:
        assert none == []
    with (
        pytest.raises(InvalidInput, match="countdown is built in"),
        plugins_of(Settings(tasks=("countdown",))),
    ):
        pass
    with (
        pytest.raises(InvalidInput, match="has a task 'nonsense'; installed"),
        plugins_of(Settings(tasks=("nonsense",))),
    ):
        pass
    assert "nonsense" not in TASKS


def test_a_checkpoint_of_a_task_that_is_not_here_says_how_to_get_it(tmp_path: Path) -> None:
    folder = shutil.copytree(CHECKPOINT, tmp_path / "model")
    manifest = json.loads((folder / "stepback.json").read_text()) | {"tasks": ["sorting"]}
    (folder / "stepback.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidInput, match="set STEPBACK_TASKS=sorting"):
        Checkpoint.open(folder)
