"""A model's own wrong steps: collected from a controller, judged by the task, made into samples."""

import json
import subprocess
from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest

from stepback_client import TreeNode
from stepback_core.errors import InvalidInput
from stepback_core.schemas import Outcome
from stepback_core.tasks import CountdownProblem
from stepback_core.trace import Grammar
from stepback_training.collect_errors.first_error import PathJudge, Tally, summary
from stepback_training.config import DataRecipe
from stepback_training.data.model_errors import ModelError, is_teachable, read_model_errors
from stepback_training.data.samples import read_samples, write_samples
from stepback_training.generators import GENERATORS, ErrorKind, Split
from stepback_training.generators.first_error import first_mistake
from tests import warm

TASK = GENERATORS["countdown"]
PROBLEM = CountdownProblem(numbers=[2, 6, 23, 55], target=44)
ERROR: dict[str, Any] = {
    "task": "countdown",
    "problem": PROBLEM.model_dump(),
    "prefix": ["55-23=32"],
    "wrong_step": "32*2=64",
    "follow_ups": ["64-6=44"],
    "kind": "exploration",
    "noticed": False,
}


def write(path: Path, *lines: object) -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    return path


def problem_of(split: Split) -> CountdownProblem:
    return next(TASK.stream(split, Random(3)))


def test_a_line_is_what_it_says() -> None:
    assert TASK.split(PROBLEM) is Split.TRAIN and TASK.reference_paths(PROBLEM)
    error = ModelError.model_validate(ERROR)
    assert error.typed_problem == PROBLEM
    assert ModelError.model_validate_json(error.model_dump_json()) == error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("{", "the line: Invalid JSON"),
        ({"task": "chess"}, "task: there is no 'chess'"),
        ({"problem": {"numbers": [2]}}, "problem: numbers: List should have at least 2"),
        ({"problem": problem_of(Split.TEST_SEEN).model_dump()}, "must not be trained on"),
        ({"problem": problem_of(Split.TEST_NEW).model_dump()}, "must not be trained on"),
        ({"problem": PROBLEM.model_dump() | {"target": 47}}, "must not be trained on"),
        ({"kind": "computational"}, "wrong_step: it is no computational error"),
        ({"prefix": []}, "wrong_step: it is no exploration error"),
        ({"prefix": ["55-23=32", "32*2=64"], "wrong_step": "64-6=44"}, "or not the first error"),
        ({"wrong_step": TASK.reference_paths(PROBLEM)[0][0], "prefix": []}, "or not the first"),
        ({"follow_ups": ["64-6=47"]}, "'64-6=47': it ends in a held-out goal"),
        ({"follow_ups": [f"64-6=58{Grammar().marker}"]}, "what the trace grammar uses"),
        ({"follow_ups": [""]}, "'': it ends"),
        ({"surplus": 1}, "surplus: Extra inputs"),
    ],
)
def test_a_line_that_must_not_be_believed_is_named(
    tmp_path: Path, change: Any, message: str
) -> None:
    line = change if isinstance(change, str) else ERROR | change
    file = write(tmp_path / "errors.jsonl", ERROR, line)
    with pytest.raises(InvalidInput) as caught:
        list(read_model_errors(file))
    assert str(caught.value).startswith(f"{file}:2: ") and message in str(caught.value)
    recipe = DataRecipe.model_validate({"samples": 10, "own_errors": {"file": str(file)}})
    with pytest.raises(InvalidInput, match=r"errors\.jsonl:2: "):
        write_samples(recipe, tmp_path / "samples.jsonl")
    assert not (tmp_path / "samples.jsonl").exists()


def test_a_wrong_step_of_several_lines_may_be_taught_under_another_separator() -> None:
    step = ["32*2=64\n# of 55-23"]
    assert is_teachable(TASK, PROBLEM, step)
    assert is_teachable(TASK, PROBLEM, step, Grammar(separator="\n\n"))
    assert not is_teachable(TASK, PROBLEM, step, Grammar())


@pytest.mark.parametrize("step", ["32*2=64<pad>", "<unknown>", "32*2=64<|eot_id|>"])
def test_a_step_with_a_control_token_is_never_taught(step: str) -> None:
    assert not is_teachable(TASK, PROBLEM, [step])


def some_errors(path: Path, count: int) -> list[ModelError]:
    """A file of exploration errors, each with what might follow it."""
    errors: list[ModelError] = []
    rng = Random(1)
    for problem in TASK.stream(Split.TRAIN, rng):
        prefix = TASK.reference_paths(problem)[0][:1]
        wrong = TASK.wrong_step(problem, prefix, ErrorKind.EXPLORATION, rng)
        if wrong is None:
            continue
        following = TASK.follow_up(problem, [*prefix, wrong], rng)
        change = {"prefix": prefix, "wrong_step": wrong, "follow_ups": [following or "1+1=2"]}
        errors.append(ModelError.model_validate(ERROR | {"problem": problem.model_dump()} | change))
        if len(errors) == count:
            break
    write(path, *(error.model_dump(mode="json") for error in errors))
    return errors


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_a_share_of_the_wrong_steps_is_the_models_own(tmp_path: Path, share: float) -> None:
    file = tmp_path / "errors.jsonl"
    own = {error.key[1:]: error for error in some_errors(file, 50)}
    recipe = DataRecipe.model_validate(
        {
            "samples": 2000,
            "own_errors": {"file": str(file), "share": share},
            "wrong_steps": {1: 0.5, 2: 0.5},
            "errors": {"computational": 1},
        }
    )
    for name, processes in (("one", 1), ("two", 2)):
        write_samples(recipe, tmp_path / name, processes=processes)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    wrong = [sample for sample in read_samples(tmp_path / "one") if sample.wrong_steps]
    assert len(wrong) / 2000 == pytest.approx(0.5, abs=0.04)
    numbers = Counter[int]()
    for sample in wrong:
        error = own.get((sample.prompt, (*sample.steps, sample.wrong_steps[0])))
        if error is not None:
            assert sample.follow_ups in ([], error.follow_ups)
            numbers[len(sample.wrong_steps)] += 1
    assert numbers.total() / len(wrong) == pytest.approx(share, abs=0.05)
    assert numbers[1] / numbers.total() == pytest.approx(0.5, abs=0.1)


def test_a_task_without_errors_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "errors.jsonl", ERROR)
    recipe = DataRecipe.model_validate(
        {"task": "sudoku", "samples": 5, "own_errors": {"file": str(file)}}
    )
    with pytest.raises(InvalidInput, match="no errors of sudoku"):
        write_samples(recipe, tmp_path / "samples.jsonl")


def test_beside_a_task_with_errors_another_has_invented_ones(tmp_path: Path) -> None:
    file = write(tmp_path / "errors.jsonl", ERROR)
    own = {"file": str(file), "share": 1.0}
    tasks = [{"name": "countdown"}, {"name": "sudoku"}]
    changes = {"tasks": tasks, "samples": 60, "backtrack_share": 1.0, "own_errors": own}
    write_samples(DataRecipe.model_validate(changes), tmp_path / "samples.jsonl")
    samples = list(read_samples(tmp_path / "samples.jsonl"))
    prompts = {each.prompt for each in samples if each.prompt.startswith("countdown")}
    assert len(prompts) == 1
    assert len({each.prompt for each in samples}) > 5 and all(each.wrong_step for each in samples)


def path(outcome: Outcome, *steps: str) -> TreeNode:
    return TreeNode(id=1, parent=0, kept_steps=0, steps=list(steps), outcome=outcome, score=-1.0)


RIGHT = TASK.reference_paths(PROBLEM)[0]


@pytest.mark.parametrize(
    ("sampled", "counted", "wrong"),
    [
        (path(Outcome.ANSWER, *RIGHT), "solved", None),
        (path(Outcome.ANSWER, *RIGHT[:-1]), "unended", None),
        (path(Outcome.BACKTRACK, *RIGHT[:1]), "false_alarms", None),
        # The marker, or a limit, broke the last step off.
        (path(Outcome.BACKTRACK, *RIGHT[:1], "4"), "false_alarms", None),
        (path(Outcome.UNFINISHED, *RIGHT[:1], "23+1"), "unended", None),
        (path(Outcome.UNFINISHED), "unended", None),
        (
            path(Outcome.ANSWER, "55-23=32", "32*2=64", "64-6=44"),
            None,
            (1, "exploration", ["64-6=44"], False),
        ),
        (path(Outcome.BACKTRACK, "55-23=33"), None, (0, "computational", [], True)),
        (path(Outcome.BACKTRACK, "55-9=46", "46-2=44"), None, (0, "rule_violation", None, False)),
        # Shown as wrong, an end in 47 would teach that no right one ends so.
        (path(Outcome.ANSWER, "55-23=32", "32*2=64", "64-6=47"), None, (1, "exploration", [], 0)),
    ],
)
def test_the_first_wrong_step_of_a_path_is_its_error(
    sampled: TreeNode, counted: str | None, wrong: tuple[int, str, list[str] | None, bool] | None
) -> None:
    tally = Tally()
    error = PathJudge(TASK).judge(PROBLEM, sampled, tally)
    assert tally.paths == 1
    assert counted is None or getattr(tally, counted) == 1
    if wrong is None:
        assert error is None and not tally.errors
        return
    index, kind, follow_ups, noticed = wrong
    assert error is not None and error.kind == kind and error.noticed == noticed
    assert [*error.prefix, error.wrong_step] == sampled.steps[: index + 1]
    assert error.follow_ups == (sampled.steps[index + 1 :] if follow_ups is None else follow_ups)
    assert tally.errors == {kind: 1} and tally.noticed == {kind: noticed}


def test_an_error_that_must_not_be_taught_is_counted_all_the_same() -> None:
    tally = Tally()
    ended = path(Outcome.ANSWER, *RIGHT[:-1], "1+46=47")
    assert PathJudge(TASK).judge(PROBLEM, ended, tally) is None
    assert tally.paths == 1 and sum(tally.errors.values()) == 1
    assert "100.0 % first go wrong" in summary(tally)


HOT = ("--temperature", "2")
"""Temperature at which a good model makes errors too."""


def collect(url: str, out: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    asked = "--samples", "4", "--in-flight", "1", *flags
    return warm.stepback("errors", "--url", url, "--out", out, *asked)


def test_a_collection_goes_on_where_it_was_cut_short(server: str, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    done = collect(server, whole, *HOT, "--problems", "12")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("48 paths: ")
    assert collect(server, cut, *HOT, "--problems", "5").returncode == 0
    with cut.open("a") as file:
        file.write('{"task": "countd')
    assert collect(server, cut, *HOT, "--problems", "12").returncode == 0
    assert cut.read_bytes() == whole.read_bytes()
    errors = list(read_model_errors(whole))
    assert len({error.key for error in errors}) == len(errors) > 5
    for error in errors:
        assert TASK.split(error.typed_problem) is Split.TRAIN
        steps = [*error.prefix, error.wrong_step]
        assert first_mistake(TASK.checker, error.typed_problem, steps) is not None
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        'name = "own"\n[data]\nsamples = 200\n[scratch]\n[train]\nlearning_rate = 1e-3\n'
    )
    taught = "--errors-from", whole, "--errors-share", "1.0"
    done = warm.stepback("data", "--recipe", recipe, "--out", tmp_path / "samples.jsonl", *taught)
    assert done.returncode == 0, done.stderr
    own = {(*error.prefix, error.wrong_step) for error in errors}
    wrong = [s for s in read_samples(tmp_path / "samples.jsonl") if s.wrong_steps]
    assert len(wrong) > 60
    assert {(*sample.steps, sample.wrong_steps[0]) for sample in wrong} <= own


def test_a_task_that_no_model_knows_is_refused(knows_countdown: str, tmp_path: Path) -> None:
    done = collect(knows_countdown, tmp_path / "errors.jsonl", "--problems", "1", "--task", "maze")
    assert done.returncode == 2
    assert "serves no model that knows maze" in done.stderr


def test_what_cannot_be_collected_is_refused(server: str, tmp_path: Path) -> None:
    out = tmp_path / "errors.jsonl"
    assert collect(server, out, *HOT, "--problems", "4").returncode == 0
    assert out.stat().st_size
    for flags, status, message in (
        (["--problems", "1", "--seed", "1"], 2, "was begun with"),
        (["--problems", "1", "--options", '{"a": 1}'], 2, "a: no such option"),
        (["--problems", "1", "--options", "{"], 2, "Expecting"),
        (["--problems", "0"], 2, "at least 1"),
        (["--problems", "2", "--samples", "5000"], 2, "samples: Input should be less"),
        (["--problems", "2", "--temperature", "9"], 2, "temperature: Input should be less"),
        (["--problems", "1", "--url", "http://127.0.0.1:9"], 1, "goes on from here"),
    ):
        done = collect(server, out, *HOT, *flags)
        assert done.returncode == status and message in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
    foreign = write(tmp_path / "foreign.jsonl", ERROR)
    done = collect(server, foreign, "--problems", "1")
    assert done.returncode == 2 and "no collection" in done.stderr
    assert list(read_model_errors(foreign))
    whole = out.read_bytes()
    write(out)
    assert collect(server, out, *HOT, "--problems", "4").returncode == 0
    assert out.read_bytes() == whole


def test_problems_are_drawn_from_training_alone() -> None:
    from stepback_training.collect_errors.collection import CollectionPlan

    plan = CollectionPlan(task="countdown", samples=1, temperature=1.0, seed=0, model="m")
    drawn = list(islice(plan.problems, 200))
    assert all(TASK.split(problem) is Split.TRAIN for problem in drawn)
    assert drawn == list(islice(plan.problems, 200))
    assert drawn != list(islice(plan.model_copy(update={"seed": 1}).problems, 200))
