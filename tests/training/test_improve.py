"""Self-improvement: what may enter, what is kept, and a run that is killed and goes on."""

import json
import os
import signal
import time
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepback_client import Client
from stepback_core.errors import InvalidInput
from stepback_core.manifest import Manifest, weights_digest
from stepback_core.schemas import Outcome, TreeNode
from stepback_core.tasks import CountdownProblem
from stepback_training.config import DataRecipe, Recipe
from stepback_training.data.samples import read_samples
from stepback_training.generators import GENERATORS, Split
from stepback_training.improve import rounds
from stepback_training.improve.cli import improve
from stepback_training.improve.model_errors import wrong_steps
from stepback_training.improve.outcomes import SearchOutcome, WrongStep
from stepback_training.improve.problems import (
    held_out_questions,
    refuse_held_out,
    training_questions,
)
from stepback_training.improve.samples import SolvedPath, keep, write_mixture
from stepback_training.sampling.provenance import Provenance
from stepback_training.train.checkpoint import resumable
from stepback_training.train.run_folder import agree
from tests import warm
from tests.conftest import CHECKPOINT, SERVED

COUNTDOWN = GENERATORS["countdown"]
PROBLEM = CountdownProblem(numbers=[4, 16, 25, 81], target=94)
WAY = ["16-4=12", "25-12=13", "81+13=94"]
assert COUNTDOWN.checker.check(PROBLEM, WAY).strict

PLAIN: dict[str, Any] = {
    "name": SERVED,
    "data": {"samples": 1000, "paths": "plainest", "backtrack_share": 0.3},
    "base": {"path": str(CHECKPOINT)},
    "train": {"learning_rate": 1e-4, "optimizer": "muon", "schedule": "wsd", "warmup_steps": 1}
    | {"batch_tokens": 512, "row_tokens": 128, "checkpoint_every": 1},
}
IMPROVE = {"rounds": 1, "problems": 40, "validation": 10, "test": 10, "breadth": 8}


def recipe(**improve: Any) -> Recipe:
    return Recipe.model_validate(PLAIN | {"improve": IMPROVE | improve})


def kept_of(split: Split, seed: int, name: str = "countdown") -> SolvedPath:
    task = GENERATORS[name]
    problem = next(task.stream(split, Random(seed)))
    return SolvedPath(task, problem, task.reference_paths(problem)[0], [])


# Nothing of the test split


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), name=st.sampled_from(sorted(GENERATORS)))
def test_no_round_asks_a_test_problem(seed: int, name: str) -> None:
    data = DataRecipe.model_validate({"task": name, "samples": 1})
    questions = list(islice(training_questions(data, seed), 5))
    assert all(each.task.split(each.problem) is Split.TRAIN for each in questions)
    assert len({each.prompt for each in questions}) == 5
    again = list(islice(training_questions(data, seed), 5))
    assert [each.problem for each in again] == [each.problem for each in questions]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**31), name=st.sampled_from(sorted(GENERATORS)), data=st.data())
def test_no_test_problem_is_written_to_samples(
    tmp_path: Path, seed: int, name: str, data: st.DataObject
) -> None:
    split = data.draw(st.sampled_from([s for s in GENERATORS[name].splits if s is not Split.TRAIN]))
    held_out = kept_of(split, seed, name)
    with pytest.raises(InvalidInput, match="belongs to"):
        refuse_held_out(held_out.task, held_out.problem)
    path = tmp_path / "samples.jsonl"
    with pytest.raises(InvalidInput, match="belongs to"):
        write_mixture(recipe(), [kept_of(Split.TRAIN, seed), held_out], set(), path, seed)
    assert not path.exists()


def test_a_target_that_no_split_has_is_refused_too() -> None:
    """Training inputs with a held-out target."""
    problem = PROBLEM.model_copy(update={"target": 97})
    assert COUNTDOWN.split(problem) is None
    with pytest.raises(InvalidInput, match="no split"):
        refuse_held_out(COUNTDOWN, problem)


def test_what_the_run_is_measured_by_is_not_trained_on(tmp_path: Path) -> None:
    kept = [kept_of(Split.TRAIN, seed) for seed in range(20)]
    path = tmp_path / "samples.jsonl"
    with pytest.raises(InvalidInput, match="measured by"):
        write_mixture(recipe(), kept, {COUNTDOWN.checker.prompt(kept[3].problem)}, path, 1)
    # Nor does it come in with the samples that are made anew.
    write_mixture(recipe(old_share=0.9), kept, set(), path, 1)
    mine = {COUNTDOWN.checker.prompt(each.problem) for each in kept}
    made = next(s.prompt for s in read_samples(path) if s.prompt not in mine)
    write_mixture(recipe(old_share=0.9), kept, {made}, path, 1)
    assert made not in {sample.prompt for sample in read_samples(path)}


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**31), old=st.floats(0, 0.8), backtrack=st.floats(0, 0.8))
def test_every_sample_of_a_round_is_of_the_training_split(
    tmp_path: Path, seed: int, old: float, backtrack: float
) -> None:
    """Read back from the file, by what its prompts say."""
    questions = islice(training_questions(DataRecipe(samples=1), seed), 10)
    kept = [
        SolvedPath(COUNTDOWN, each.problem, COUNTDOWN.reference_paths(each.problem)[0], [])
        for each in questions
    ]
    path = tmp_path / "samples.jsonl"
    plan = recipe(old_share=old, backtrack_share=backtrack)
    counts = write_mixture(plan, kept, set(), path, seed)
    samples = list(read_samples(path))
    assert len(samples) == counts.optimal + counts.backtrack + counts.old
    assert counts.old == round((counts.optimal + counts.backtrack) * old / (1 - old))
    for sample in samples:
        numbers, _, target = sample.prompt.removeprefix("countdown:").partition("=")
        problem = CountdownProblem(numbers=[*map(int, numbers.split(","))], target=int(target))
        assert COUNTDOWN.split(problem) is Split.TRAIN
        if sample.wrong_step is None:
            assert COUNTDOWN.checker.check(problem, sample.steps).strict


def test_tests_are_tests() -> None:
    found = held_out_questions(DataRecipe(samples=1), 3, 5)
    assert set(found) == {f"countdown-{kind}" for kind in (Split.TEST_SEEN, Split.TEST_NEW)}
    for split in (Split.TEST_SEEN, Split.TEST_NEW):
        questions = found[f"countdown-{split}"]
        assert [COUNTDOWN.split(each.problem) for each in questions] == [split] * 5
        assert [(each.split, each.number) for each in questions] == [(split, n) for n in range(5)]
    assert held_out_questions(DataRecipe(samples=1), 3, 0) == {}


# What is kept


def outcome(**fields: Any) -> SearchOutcome:
    plain = {"task": "countdown", "problem": PROBLEM.model_dump(), "steps": WAY, "tokens": 9}
    return SearchOutcome.model_validate(plain | {"solved": True} | fields)


def test_a_way_is_kept_once_however_its_steps_are_written() -> None:
    same = outcome(steps=[*WAY[:2], "13+81=94"])
    other = outcome(steps=["16-4=12", "81-12=69", "25+69=94"])
    unsolved = outcome(solved=False, steps=[])
    assert [each.steps for each in keep([outcome(), same, other, unsolved])] == [WAY, other.steps]


def test_a_journal_that_was_forged_is_noticed() -> None:
    with pytest.raises(ValueError, match="not a right one"):
        keep([outcome(steps=["16-4=12", "25-12=13", "81+13=95"])])


def test_wrong_steps_are_those_that_the_search_met_where_it_was_right() -> None:
    def node(number: int, parent: int, kept: int, steps: list[str], ended: Outcome) -> TreeNode:
        return TreeNode(
            id=number, parent=parent, kept_steps=kept, steps=steps, outcome=ended, score=-1.0
        )

    tree = [
        TreeNode(id=0, parent=None, kept_steps=0, steps=[], outcome=None, score=None),
        node(1, 0, 0, WAY, Outcome.ANSWER),
        # After a step of the right way, wrongly computed.
        node(2, 1, 1, ["25-12=14"], Outcome.ILLEGAL),
        node(3, 1, 1, ["25-12=14"], Outcome.ILLEGAL),
        # Legal, and a dead end; what follows it is wrong whatever it says.
        node(4, 0, 0, ["81-25=56", "56-4=50"], Outcome.ILLEGAL),
        # In a state that leads to the goal, though not by the right way.
        node(7, 0, 0, ["16-4=12", "81-12=69", "69+25=95"], Outcome.ILLEGAL),
        # Cut in the middle of a step, and no step at all.
        node(5, 0, 0, ["16-4=1"], Outcome.UNFINISHED),
        node(6, 0, 0, ["16-"], Outcome.ILLEGAL),
    ]
    found = wrong_steps(COUNTDOWN, PROBLEM, WAY, tree)
    assert found == [
        WrongStep(prefix=["16-4=12"], step="25-12=14"),
        WrongStep(prefix=[], step="81-25=56"),
    ]


ENDS_HELD_OUT = WrongStep(prefix=["16-4=12", "81-25=56"], step="56+12=67")
"""The last step of the path says 67, a target that training never has."""


def test_no_own_wrong_step_ends_in_a_held_out_target(tmp_path: Path) -> None:
    problem = PROBLEM.model_copy(update={"target": 68})
    path = [*ENDS_HELD_OUT.prefix, "56+12=68"]
    assert COUNTDOWN.checker.check(problem, path).strict
    last = ["56+12=67", "56-12=47", "81-12=17", "56+12=69"]
    tree = [
        TreeNode(id=0, parent=None, kept_steps=0, steps=[], outcome=None, score=None),
        *(
            TreeNode(
                id=n, parent=0, kept_steps=0, steps=[*path[:2], step], outcome=Outcome.ILLEGAL,
                score=-1.0,
            )
            for n, step in enumerate(last, start=1)
        ),
        # In the middle of a path such a number is like any other.
        TreeNode(
            id=9, parent=0, kept_steps=0, steps=["16-4=17"], outcome=Outcome.ILLEGAL, score=-1.0
        ),
    ]  # fmt: skip
    found = wrong_steps(COUNTDOWN, problem, path, tree)
    assert [wrong.step for wrong in found] == ["56+12=69", "16-4=17"]
    # And what an older journal may have is refused where the samples are written.
    samples = tmp_path / "samples.jsonl"
    with pytest.raises(InvalidInput, match=r"56\+12=67 is wrong, and ends in a held-out goal"):
        kept = [SolvedPath(COUNTDOWN, problem, path, [*found, ENDS_HELD_OUT])]
        write_mixture(recipe(), kept, set(), samples, 1)
    assert not samples.exists()


def test_own_mistakes_are_taught_and_invented_ones_where_there_are_none(tmp_path: Path) -> None:
    wrong = WrongStep(prefix=["16-4=12"], step="25-12=14")
    kept = [
        SolvedPath(COUNTDOWN, PROBLEM, WAY, [wrong]),
        *(kept_of(Split.TRAIN, n) for n in range(9)),
    ]
    path = tmp_path / "samples.jsonl"
    own = write_mixture(recipe(backtrack_share=0.5, old_share=0), kept, set(), path, 1)
    assert (own.optimal, own.backtrack, own.own_errors, own.old) == (10, 10, 1, 0)
    assert "25-12=14" in [sample.wrong_step for sample in read_samples(path)]
    plan = recipe(backtrack_share=0.5, old_share=0, wrong_steps="invented")
    assert write_mixture(plan, kept, set(), path, 1).own_errors == 0


# The command


PROBLEMS = 16


def write_recipe(folder: Path, improve: str = "", **changes: str) -> Path:
    text = f"""
name = "{SERVED}"
[data]
samples = 1000
paths = "plainest"
backtrack_share = 0.3
tasks = [
    {{ name = "countdown", share = 4 }},
    {{ name = "maze" }},
    {{ name = "sudoku", options = {{ size = 4 }} }},
]
[base]
path = "{CHECKPOINT}"
[train]
learning_rate = 1e-4
optimizer = "muon"
schedule = "wsd"
warmup_steps = 1
batch_tokens = 256
row_tokens = 256
checkpoint_every = 1
[improve]
rounds = 1
problems = {PROBLEMS}
breadth = 8
validation = 3
test = 2
{improve}
"""
    for old, new in changes.items():
        text = text.replace(old, new)
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def command(path: Path, run: Path, url: str, *flags: str) -> list[str]:
    given = ["--recipe", str(path), "--run", str(run), "--url", url, *flags]
    return ["improve", *given]


@pytest.mark.parametrize(
    ("improve", "named"),
    [
        ("rounds = 0", "improve.rounds"),
        ("old_share = 1.0", "improve.old_share"),
        ("train = { learning_rate = -1 }", "improve.train: learning_rate"),
        ("train = { speed = 1 }", "improve.train: speed"),
        ("strategy = 'dfs'", "improve.strategy"),
        ("pairs = 3", "improve.pairs"),
    ],
)
def test_a_bad_table_is_refused_by_name(tmp_path: Path, improve: str, named: str) -> None:
    path = write_recipe(tmp_path)
    name = improve.split(" ")[0]
    lines = [line for line in path.read_text().splitlines() if not line.startswith(f"{name} =")]
    path.write_text("\n".join([*lines, improve]))
    with pytest.raises(InvalidInput, match=named):
        Recipe.read(path)


def test_rounds_of_an_older_version_go_on(tmp_path: Path) -> None:
    path, identity = tmp_path / "run.json", rounds.identity(recipe(), "digest")
    agree(path, identity)
    started = json.loads(path.read_text())
    del started["recipe"]["train"]["tokens"], started["recipe"]["improve"]["test_search"]
    started["recipe"]["train"]["checkpoint_every"] = 250  # as it once stood there
    path.write_text(json.dumps(started))
    agree(path, identity, rounds.renewed)
    with pytest.raises(ValueError, match="another recipe"):
        agree(path, rounds.identity(recipe(problems=41), "digest"), rounds.renewed)


def test_a_recipe_of_another_model_is_refused(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    path.write_text(path.read_text().replace(f'name = "{SERVED}"', 'name = "other"'))
    done = warm.stepback(*command(path, tmp_path / "run", "http://127.0.0.1:9"))
    assert done.returncode == 2 and "name is other" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_search_that_no_server_takes_is_refused_before_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_recipe(tmp_path)
    path.write_text(path.read_text().replace("breadth = 8", "breadth = 5000"))
    assert improve(command(path, tmp_path / "run", "http://127.0.0.1:9")[1:]) == 2
    assert "[improve] breadth: " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def kill_once(given: list[str], reached: Any, log: Path) -> None:
    """Run until something is there, then kill hard."""
    with log.open("a") as output:
        process = warm.start(warm.STEPBACK, *given, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 300
        while not reached():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()


def outcomes_of(path: Path) -> list[dict[str, Any]]:
    whole = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
    return [line for line in map(json.loads, whole.splitlines()) if "outcome" in line]


@pytest.mark.timeout(900)
def test_a_run_killed_twice_goes_on_to_a_better_informed_engine(
    loadable: tuple[str, Path], tmp_path: Path
) -> None:
    url, run = loadable
    log = tmp_path / "improve.txt"
    solved, train = run / "1/solved.jsonl", run / "1/train"
    given = command(write_recipe(tmp_path), run, url, "--best", "--in-flight", "2")
    kill_once(given, lambda: len(outcomes_of(solved)) >= 3, log)
    paid = outcomes_of(solved)
    assert len(paid) < PROBLEMS, "it ended before it was killed"
    kill_once(given, lambda: resumable(train / "checkpoints"), log)
    assert not (train / "model").exists(), "it ended before it was killed"
    samples = (run / "1/samples.jsonl").read_bytes()
    done = warm.stepback(*given)
    assert done.returncode == 0, done.stderr[-3000:]
    with Client(url) as client:
        served = client.version().digest
    # What was paid before a kill was not paid again.
    outcomes = outcomes_of(solved)
    assert outcomes[: len(paid)] == paid
    assert sorted(each["number"] for each in outcomes) == list(range(3, 3 + PROBLEMS))
    assert (run / "1/samples.jsonl").read_bytes() == samples
    # The engine has the new weights, which were tested and are kept.
    assert served == weights_digest(train / "model") == weights_digest(run / "model")
    assert served != weights_digest(CHECKPOINT)
    assert Manifest.read(run / "model").name == SERVED
    record = json.loads((run / "improve.json").read_text())
    assert record["code"] == Provenance.here().model_dump()
    start, first = record["rounds"]
    assert (start["number"], start["search"], first["digest"]) == (0, None, served)
    found = [each["outcome"] for each in outcomes]
    assert first["search"]["solved"]["of"] == PROBLEMS
    assert first["search"]["solved"]["hits"] == sum(each["solved"] for each in found) > 5
    assert first["search"]["tokens"] == sum(each["tokens"] for each in found)
    assert first["samples"]["optimal"] == first["paths"] <= first["search"]["solved"]["hits"]
    assert 0 < first["training"]["final_loss"] < 5
    assert set(first["greedy"]) == {
        "countdown-test_seen",
        "countdown-test_new",
        "maze-test_seen",
        "sudoku-test_seen",
    }
    share = first["validation"]["solved"]
    assert share["low"] <= share["percent"] <= share["high"] and share["of"] == 3
