"""A task of one's own, as `stepback task new` writes it: tested, trained, served, evaluated."""

import tomllib
from pathlib import Path

import pytest

from stepback_client import Client
from stepback_server.checkpoint import Checkpoint
from stepback_server.plugins import plugins_of
from stepback_server.settings import Settings
from tests import warm
from tests.conftest import controller


def run(*arguments: str | Path, status: int = 0) -> str:
    done = warm.run(*arguments)
    assert done.returncode == status, done.stdout + done.stderr[-3000:]
    return done.stdout + done.stderr


def stepback(*arguments: str | Path, status: int = 0) -> str:
    return run(warm.STEPBACK, *arguments, status=status)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new package, found as if pip had installed it."""
    folder = tmp_path / "package"
    stepback("task", "new", "word_order", "--out", folder)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    (info / "entry_points.txt").write_text(
        "\n".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
            for group, entries in project["entry-points"].items()
        )
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


def test_its_tests_pass_from_the_first_minute(package: Path) -> None:
    assert "7 passed" in run("pytest", "-q", "-p", "no:cacheprovider", package)


def test_its_author_writes_fewer_than_60_lines(package: Path) -> None:
    sources = [*package.glob("stepback_word_order/*.py"), *package.glob("tests/*.py")]
    lines = [line for path in sources for line in path.read_text().splitlines() if line.strip()]
    assert 0 < len(lines) < 60


def test_a_defect_of_the_checker_is_found_by_its_tests(package: Path) -> None:
    checker = package / "stepback_word_order/checker.py"
    checker.write_text(checker.read_text().replace("[*steps] == sorted(", "set(steps) <= set("))
    done = warm.run("pytest", "-q", "-p", "no:cacheprovider", package)
    assert done.returncode == 1 and "failed" in done.stdout


def test_names_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for name, why in (("maze", "built-in"), ("Word-Order", "no name"), ("traces", "built-in")):
        assert why in stepback("task", "new", name, "--out", tmp_path / "x", status=2)
    assert not (tmp_path / "x").exists()


def test_a_recipe_of_a_task_that_is_not_named_says_how(package: Path, tmp_path: Path) -> None:
    recipe = package / "recipe.toml"
    told = stepback("data", "--recipe", recipe, "--out", tmp_path / "s.jsonl", status=2)
    assert "unknown task 'word_order'" in told and "STEPBACK_TASKS" in told


@pytest.fixture
def trained(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STEPBACK_TASKS", "word_order")
    recipe, samples = package / "recipe.toml", tmp_path / "samples.jsonl"
    recipe.write_text(recipe.read_text().replace("20_000", "400"))
    stepback("data", "--recipe", recipe, "--out", samples, "--processes", "2")
    stepback("train", "--recipe", recipe, "--data", samples, "--out", tmp_path / "run")
    return tmp_path / "run/model"


@pytest.mark.timeout(1800)
def test_it_is_trained_served_and_evaluated(trained: Path, tmp_path: Path) -> None:
    with plugins_of(Settings(tasks=("word_order",))):
        assert Checkpoint.open(trained).manifest.tasks == ["word_order"]
    with controller(tmp_path / "log.txt", trained, tasks="word_order") as url:
        with Client(url) as client:
            assert client.models().data[0].tasks == ["word_order"]
            result = client.solve(
                {"words": ["gnu", "ant", "hen"]}, task="word_order", strategy="greedy"
            )
            assert result.answer is None or result.answer.verified is not None
        asked = ["--task", "word_order", "--problems", "4", "--strategies", "greedy"]
        stepback("evaluate", *asked, "--url", url, "--no-picture", "--out", tmp_path / "out.json")
    assert (tmp_path / "out.json").is_file()
