"""Training samples: what is in them, and that a seed decides them."""

import json
from collections import Counter
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stepback_core.errors import InvalidInput
from stepback_core.manifest import Manifest
from stepback_core.tasks import CountdownProblem, Reason
from stepback_training.cli import data
from stepback_training.config import DataRecipe, Recipe, Source
from stepback_training.data.samples import (
    Sample,
    first_of_each_order,
    read_samples,
    recipe_as_written,
    recipe_of,
    write_samples,
)
from stepback_training.generators import GENERATORS, ErrorKind, Split
from stepback_training.generators.first_error import first_mistake
from tests.conftest import CHECKPOINT, ROOT

TASK = GENERATORS["countdown"]


def problem_of(sample: Sample) -> CountdownProblem:
    numbers, _, target = sample.prompt.removeprefix("countdown:").partition("=")
    return CountdownProblem(numbers=[int(n) for n in numbers.split(",")], target=int(target))


def make(path: Path, *, processes: int = 2, **changes: object) -> list[Sample]:
    recipe = DataRecipe.model_validate({"samples": 4500, "seed": 3} | changes)
    write_samples(recipe, path, processes=processes)
    return list(read_samples(path))


def test_each_problem_may_have_several_wrong_paths_beside_its_right_one(tmp_path: Path) -> None:
    samples = make(tmp_path / "a", samples=1000, wrong_paths=2.5)
    of_prompt = Counter(sample.prompt for sample in samples)
    right = Counter(sample.prompt for sample in samples if not sample.wrong_steps)
    assert right.keys() == of_prompt.keys()
    assert 3.3 < len(samples) / sum(right.values()) < 3.7
    assert all(not s.wrong_steps for s in make(tmp_path / "b", samples=100, wrong_paths=0))


def test_a_seed_decides_the_bytes_whatever_the_number_of_processes(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("one", "two", "other")]
    make(files[0], processes=1)
    make(files[1], processes=2)
    make(files[2], seed=4)
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()


def test_samples_are_right_where_they_should_be_and_wrong_where_they_should_be(
    tmp_path: Path,
) -> None:
    samples = make(tmp_path / "samples")
    assert len(samples) == 4500
    kinds = Counter[ErrorKind | None]()
    for sample in samples:
        problem = problem_of(sample)
        # Nothing of the test split, and no held-out target.
        assert TASK.split(problem) is Split.TRAIN
        if sample.wrong_step is None:
            assert TASK.checker.check(problem, sample.steps).strict
            kinds[None] += 1
            continue
        reason = TASK.checker.check_step(problem, sample.steps, sample.wrong_step)
        kinds[
            {
                None: ErrorKind.EXPLORATION,
                Reason.WRONG_ARITHMETIC: ErrorKind.COMPUTATIONAL,
                Reason.UNAVAILABLE_OPERAND: ErrorKind.RULE_VIOLATION,
            }[reason]
        ] += 1
    assert kinds[None] / 4500 == pytest.approx(0.5, abs=0.03)
    wrong = 4500 - kinds[None]
    assert kinds[ErrorKind.EXPLORATION] / wrong == pytest.approx(0.2, abs=0.03)
    assert kinds[ErrorKind.COMPUTATIONAL] / wrong == pytest.approx(0.4, abs=0.03)


def test_several_tasks_share_the_samples(tmp_path: Path) -> None:
    tasks = [
        {"name": "countdown", "share": 2},
        {"name": "maze", "options": {"smallest": 3, "largest": 3}},
        {"name": "sudoku", "options": {"size": 4}},
        {"name": "sudoku", "options": {"size": 9}},
    ]
    samples = make(tmp_path / "a", samples=3000, tasks=tasks)
    sizes = Counter((s.prompt.partition(":")[0], s.prompt.count("I")) for s in samples)
    assert sizes["countdown", 0] / 3000 == pytest.approx(0.4, abs=0.03)
    for other in (("maze", 0), ("sudoku", 0), ("sudoku", 1)):
        assert sizes[other] / 3000 == pytest.approx(0.2, abs=0.03)
    wrong = sum(s.wrong_step is not None for s in samples)
    assert wrong / 3000 == pytest.approx(0.5, abs=0.03)


def test_a_single_task_may_be_written_without_a_table() -> None:
    short = DataRecipe.model_validate({"task": "maze", "options": {"loops": 0.2}, "samples": 1})
    long = {"tasks": [{"name": "maze", "options": {"loops": 0.2}}], "samples": 1}
    assert short == DataRecipe.model_validate(long)
    assert DataRecipe.model_validate_json(short.model_dump_json()) == short


def test_kinds_and_shares_are_options(tmp_path: Path) -> None:
    only_rule = make(tmp_path / "a", errors={"rule_violation": 1.0}, backtrack_share=1.0)
    for sample in only_rule:
        assert sample.wrong_step is not None
        reason = TASK.checker.check_step(problem_of(sample), sample.steps, sample.wrong_step)
        assert reason is Reason.UNAVAILABLE_OPERAND
    assert all(s.wrong_step is None for s in make(tmp_path / "b", backtrack_share=0.0))


def test_the_plainest_path_is_the_first_reference_path(tmp_path: Path) -> None:
    for sample in make(tmp_path / "a", samples=300, paths="plainest", backtrack_share=0.0):
        assert sample.steps == TASK.reference_paths(problem_of(sample))[0]


def test_the_samples_of_a_recipe_are_these_for_good(tmp_path: Path) -> None:
    make(tmp_path / "a", samples=1000, processes=1)
    found = sha256((tmp_path / "a").read_bytes()).hexdigest()
    assert found == "efe73787eee793af749711112194583c6c4b92c55ec245cc55b0f469d9d3a0bd"


paths_of_steps = st.lists(st.lists(st.sampled_from("abc"), max_size=3), max_size=12)


@given(paths_of_steps)
def test_of_paths_in_another_order_the_first_is_kept(paths: list[list[str]]) -> None:
    kept = first_of_each_order(paths)
    assert [sorted(path) for path in kept] == list(
        map(list, dict.fromkeys(tuple(sorted(path)) for path in paths))
    )
    for path in kept:
        assert path == next(other for other in paths if sorted(other) == sorted(path))


def test_a_share_of_the_right_paths_stops_behind_its_first_step(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole", paths="plainest", backtrack_share=0.2)
    cut = make(tmp_path / "cut", paths="plainest", backtrack_share=0.2, first_steps=0.7)
    assert not any(sample.beginning for sample in whole)
    right = [sample for sample in cut if sample.wrong_step is None]
    beginnings = [sample for sample in right if sample.beginning]
    assert len(beginnings) / len(right) == pytest.approx(0.7, abs=0.03)
    for sample in beginnings:
        assert sample.steps == TASK.reference_paths(problem_of(sample))[0][:1]
    # As for the rest, they are whole.
    assert all(len(sample.steps) == 3 for sample in right if not sample.beginning)


def test_a_beginning_is_of_a_right_path() -> None:
    with pytest.raises(ValidationError, match="ends in the marker"):
        Sample(prompt="p", steps=["a"], wrong_step="b", beginning=True)
    with pytest.raises(ValidationError, match="nothing to learn"):
        Sample(prompt="p", steps=[], beginning=True)
    # Without any whole path nothing would end.
    with pytest.raises(ValidationError, match="less than 1"):
        DataRecipe(samples=1, first_steps=1)


def test_canonical_paths_are_every_way_in_one_order(tmp_path: Path) -> None:
    met = Counter[bool]()
    for sample in make(tmp_path / "a", samples=600, paths="canonical", backtrack_share=0.0):
        paths = TASK.reference_paths(problem_of(sample))
        same = [path for path in paths if sorted(path) == sorted(sample.steps)]
        assert sample.steps == same[0]
        met[sample.steps == paths[0]] += 1
    # Not the plainest way alone.
    assert met[True] > 50 and met[False] > 50


def test_several_steps_may_be_wrong_before_the_marker(tmp_path: Path) -> None:
    weights = {1: 0.5, 2: 0.3, 3: 0.2}
    samples = make(tmp_path / "a", samples=3000, wrong_steps=weights, backtrack_share=1.0)
    numbers = Counter(len(sample.wrong_steps) for sample in samples)
    # Now and then fewer than were drawn: nothing follows a wrong last step.
    assert numbers[1] / 3000 == pytest.approx(0.5, abs=0.06)
    assert numbers[2] > 600 and numbers[3] > 300 and set(numbers) == {1, 2, 3}
    for sample in samples:
        problem, steps = problem_of(sample), sample.steps + sample.wrong_steps
        mistake = first_mistake(TASK.checker, problem, steps)
        assert mistake is not None and mistake.index == len(sample.steps)
        assert not any(
            TASK.ends_held_out(problem, steps[:end])
            for end in range(len(sample.steps) + 1, len(steps) + 1)
        )


def test_a_share_of_the_wrong_paths_claims_the_goal(tmp_path: Path) -> None:
    samples = make(tmp_path / "a", samples=3000, false_claims=0.4, backtrack_share=0.5)
    wrong = [sample for sample in samples if sample.wrong_steps]
    assert len(wrong) / 3000 == pytest.approx(0.5, abs=0.05)
    claiming = [
        sample
        for sample in wrong
        if TASK.checker.claims_goal(problem_of(sample), sample.wrong_steps)
        and TASK.checker.check_step(problem_of(sample), before(sample), sample.wrong_steps[-1])
    ]
    # A few other errors claim it by chance.
    assert len(claiming) / len(wrong) == pytest.approx(0.4, abs=0.06)
    # Behind a right prefix, and one and two steps after the way was lost.
    assert {len(sample.wrong_steps) for sample in claiming} == {1, 2, 3}
    for sample in claiming:
        mistake = first_mistake(TASK.checker, problem_of(sample), sample.steps + sample.wrong_steps)
        assert mistake is not None and mistake.index == len(sample.steps)


def before(sample: Sample) -> list[str]:
    """Steps without the last wrong one."""
    return sample.steps + sample.wrong_steps[:-1]


def test_where_no_step_claims_the_goal_errors_are_of_the_other_kinds(tmp_path: Path) -> None:
    changes = {"task": "sudoku", "backtrack_share": 1.0, "samples": 200}
    claiming = make(tmp_path / "a", false_claims=1.0, **changes)
    assert all(sample.wrong_steps for sample in claiming) and len(claiming) == 200


def test_a_follow_up_needs_a_wrong_step_to_follow() -> None:
    with pytest.raises(ValidationError, match="no wrong_step"):
        Sample(prompt="p", steps=["a"], follow_ups=["b"])
    line = '{"prompt": "p", "steps": ["a"], "wrong_step": "b", "follow_ups": ["c", "d"]}'
    assert Sample.model_validate_json(line).wrong_steps == ["b", "c", "d"]


@pytest.mark.parametrize(
    ("line", "field"),
    [("{", "the line"), ('{"prompt": "p"}', "steps"), ('{"prompt": 1, "steps": []}', "prompt")],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, field: str) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text('{"prompt": "p", "steps": []}\n' + line + "\n")
    with pytest.raises(InvalidInput, match=f"samples.jsonl:2: {field}"):
        list(read_samples(path))


def test_a_byte_order_mark_and_empty_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    line = b'{"prompt": "a", "steps": ["b"]}\r\n'
    path.write_bytes(b"\xef\xbb\xbf" + line + b"\r\n" + line + b"\n")
    assert [sample.prompt for sample in read_samples(path)] == ["a", "a"]


def test_samples_of_a_task_that_is_not_known_here_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    recipe = {"samples": 1, "tasks": [{"name": "sorting"}]}
    path.with_name("samples.jsonl.recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(InvalidInput, match=r"recipe\.json: tasks\.0: unknown task") as no:
        recipe_of(path)
    assert len(str(no.value).splitlines()) == 1


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    make(path, samples=20)
    chess = Source.model_construct(name="chess", share=1.0, options={}, files=[])
    unusable = DataRecipe(samples=4000).model_copy(update={"tasks": [chess]})
    before = path.read_bytes()
    with pytest.raises(KeyError):
        write_samples(unusable, path, processes=1)
    assert path.read_bytes() == before
    path.unlink()
    with pytest.raises(KeyError):
        write_samples(unusable, path, processes=1)
    assert not path.exists() and recipe_of(path) is None
    make(path, samples=10)
    assert path.exists()
    assert recipe_of(path) == DataRecipe(samples=10, seed=3)


def test_samples_of_another_recipe_are_refused_and_the_difference_is_named(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    make(path, samples=10)
    recipe = DataRecipe(samples=10, seed=3)
    assert recipe_as_written(path, recipe) == recipe
    assert recipe_as_written(tmp_path / "elsewhere.jsonl", recipe) == recipe
    other = recipe.model_copy(update={"backtrack_share": 0.25})
    with pytest.raises(ValueError, match=r"backtrack_share \(0\.5, here 0\.25\); write it anew"):
        recipe_as_written(path, other)


def test_what_flags_changed_for_these_samples_is_taken_from_them(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(GOOD)
    path, recipe = tmp_path / "samples.jsonl", Recipe.read(tmp_path / "recipe.toml").data
    flags = ["--recipe", str(tmp_path / "recipe.toml"), "--out", str(path), "--processes", "1"]
    assert data([*flags, "--backtrack-share", "0", "--seed", "5"]) == 0
    assert recipe_of(path) == recipe.model_copy(update={"backtrack_share": 0.0, "seed": 5})
    assert recipe_as_written(path, recipe) == recipe_of(path)
    with pytest.raises(ValueError, match=r"this recipe's: samples \(10, here 12\)"):
        recipe_as_written(path, recipe.model_copy(update={"samples": 12}))


def test_a_share_of_none_leaves_no_marker_whatever_the_recipe_says(tmp_path: Path) -> None:
    recipe, path = tmp_path / "recipe.toml", tmp_path / "samples.jsonl"
    recipe.write_text(GOOD.replace("samples = 10", "samples = 10\nwrong_paths = 2"))
    flags = ["--recipe", str(recipe), "--out", str(path), "--processes", "1"]
    assert data(flags) == 0
    assert any(sample.wrong_steps for sample in read_samples(path))
    assert data([*flags, "--backtrack-share", "0"]) == 0
    assert not any(sample.wrong_steps for sample in read_samples(path))


def test_a_flag_that_says_what_the_recipe_says_is_no_change(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(GOOD)
    path, recipe = tmp_path / "samples.jsonl", Recipe.read(tmp_path / "recipe.toml").data
    flags = ["--recipe", str(tmp_path / "recipe.toml"), "--out", str(path), "--processes", "1"]
    assert data([*flags, "--backtrack-share", str(recipe.backtrack_share)]) == 0
    for change in ({"backtrack_share": 0.25}, {"wrong_paths": 4.0}):
        with pytest.raises(ValueError, match=next(iter(change))):
            recipe_as_written(path, recipe.model_copy(update=change))


def test_a_long_difference_is_one_short_line(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    make(path, samples=10, separator="\n\n")
    other = [Source(name="maze", options={"smallest": n}) for n in range(3, 6)]
    recipe = DataRecipe(samples=10, seed=3, tasks=other)
    with pytest.raises(ValueError, match="separator") as refused:
        recipe_as_written(path, recipe)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 500


@pytest.mark.parametrize(
    "text", ["[1]", "not JSON", "", '{"changed": null}', '{"changed": "seed"}', '{"changed": [1]}']
)
def test_a_recipe_beside_the_samples_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "samples.jsonl.recipe.json").write_text(text)
    with pytest.raises(InvalidInput, match=r"samples\.jsonl\.recipe\.json: "):
        recipe_of(tmp_path / "samples.jsonl")


GOOD = """
name = "x"
[data]
samples = 10
[scratch]
[train]
learning_rate = 1e-3
"""


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("name = ", "not TOML"),
        (GOOD.replace("samples = 10", "samples = 0"), "data.samples"),
        (GOOD.replace("samples = 10", 'samples = 1\ntask = "chess"'), "chess"),
        (GOOD.replace("samples = 10", ""), "samples: say how many"),
        (GOOD.replace("samples = 10", 'task = "traces"'), "traces needs them"),
        (GOOD.replace("samples = 10", 'samples = 1\nfiles = ["a"]'), "no other task has any"),
        (
            GOOD.replace("samples = 10", "samples = 1\noptions = { a = 1 }"),
            "options: a: no such option",
        ),
        (
            GOOD.replace("samples = 10", 'task = "maze"\noptions = { smallst = 4 }'),
            "smallest, largest",
        ),
        (
            GOOD.replace("samples = 10", 'task = "knights"\noptions = { people = 4 }'),
            "list of 2 values",
        ),
        (GOOD.replace("samples = 10", 'task = "knights"\noptions = { people = [4] }'), "list of 2"),
        (
            GOOD.replace("samples = 10", 'task = "knights"\noptions = { people = [6, 4] }'),
            "6 is more than 4",
        ),
        (GOOD.replace("samples = 10", "samples = 1\ntasks = []"), "data.tasks"),
        (
            GOOD.replace(
                "samples = 10", 'samples = 1\ntask = "sudoku"\nerrors = { computational = 1 }'
            ),
            "errors: sudoku has only exploration, rule_violation",
        ),
        (GOOD.replace("samples = 10", "samples = 1\nwrong_steps = { 0 = 1 }"), "wrong_steps.0"),
        (GOOD.replace("samples = 10", "samples = 1\nwrong_steps = { 1 = -1 }"), "wrong_steps.1"),
        (GOOD.replace("samples = 10", "samples = 1\nwrong_steps = { 2 = 0 }"), "must be positive"),
        (GOOD.replace("samples = 10", "samples = 1\nown_errors = { share = 1 }"), "errors.file"),
        (
            GOOD.replace("samples = 10", 'samples = 1\nown_errors = { file = "a", share = 0 }'),
            "own_errors.share",
        ),
        (
            GOOD.replace("samples = 10", 'task = "traces"\nfiles = ["a"]\nown_errors.file = "b"'),
            "own_errors: there is no task",
        ),
        (GOOD.replace("samples = 10", "tasks = 7"), "data.tasks"),
        (GOOD.replace("samples = 10", 'task = "maze"\ntasks = []'), "give these or task"),
        (GOOD.replace("[data]", "data = 7\n[other]"), "data"),
        (GOOD.replace("samples = 10", "samples = 1\nerrors = { typo = 1 }"), "data.errors"),
        (GOOD + "speed = 3\n", "train.speed"),
        (
            GOOD.replace("name =", "title =").replace("learning_rate = 1e-3", ""),
            "name: Field required; train.learning_rate: Field required; title: Extra",
        ),
        (GOOD + "batch_tokens = 1000\n", "multiple of row_tokens"),
        (GOOD + "batch_tokens = 8192\nmicro_rows = 20\n", "micro_rows must divide"),
        (GOOD.replace("[scratch]", ""), "scratch"),
        (GOOD.replace("[scratch]", "[scratch]\nhidden_size = 100\nheads = 3"), "multiple of heads"),
    ],
)
def test_a_bad_recipe_is_refused_by_field(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=named):
        Recipe.read(path)


def test_the_bundled_checkpoint_was_made_by_the_recipe_in_the_repository() -> None:
    manifest = Manifest.read(CHECKPOINT)
    recipe = Recipe.read(ROOT / "training/recipes/multitask.toml")
    assert Recipe.model_validate(manifest.recipe) == recipe


@given(st.integers(0, 2**32))
def test_wrong_steps_are_never_legal_solutions(seed: int) -> None:
    rng = Random(seed)
    problem = next(TASK.stream(Split.TRAIN, rng))
    path = TASK.reference_paths(problem)[0]
    wrong = TASK.wrong_step(problem, path[:2], ErrorKind.EXPLORATION, rng)
    assert wrong is None or not TASK.checker.check(problem, [*path[:2], wrong]).strict
