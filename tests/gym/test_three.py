"""Three tasks of reasoning-gym in one model: trained, served and evaluated by one recipe."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from random import Random

import pytest
from tests.conftest import ROOT, controller

from stepback_client import Client
from stepback_training.generators.gym import GymGenerator

RECIPE = ROOT / "training/recipes/plugins/gym.toml"
OPTIONS = {
    each["name"]: each["options"] for each in tomllib.loads(RECIPE.read_text())["data"]["tasks"]
}
TASKS = ",".join(OPTIONS)


def stepback(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "stepback_client.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of the recipe, after a thirtieth of its tokens."""
    text = RECIPE.read_text()
    assert f"STEPBACK_TASKS={TASKS}\n" in text and "tokens = 2_000_000" in text
    recipe = tmp_path / "gym.toml"
    shorter = {"tokens = 2_000_000": "tokens = 60_000", "samples = 30_000": "samples = 2_000"}
    for whole, part in (shorter | {"warmup_steps = 50": "warmup_steps = 5"}).items():
        assert text.count(whole) == 1
        text = text.replace(whole, part)
    recipe.write_text(text)
    monkeypatch.setenv("STEPBACK_TASKS", TASKS)
    samples = tmp_path / "samples.jsonl"
    stepback("data", "--recipe", recipe, "--out", samples, "--processes", "1")
    stepback("train", "--recipe", recipe, "--data", samples, "--out", tmp_path / "run")
    return tmp_path / "run/model"


@pytest.mark.timeout(3600)
def test_three_tasks_are_trained_in_one_model_and_served(trained: Path, tmp_path: Path) -> None:
    # Seconds of a machine that may be busy; a call's limit is not at issue here.
    with controller(tmp_path / "log.txt", trained, tasks=TASKS, task_seconds=60) as url:
        with Client(url) as client:
            assert client.models().data[0].tasks == TASKS.split(",")
            for name, options in OPTIONS.items():
                generator = GymGenerator(name.removeprefix("gym:")).with_options(options)
                problem = generator.draw(Random(1)).model_dump(mode="json")
                result = client.solve(problem, task=name, breadth=4)
                assert result.status in {"solved", "unsolved"}
                assert result.answer is None or result.answer.verified is not None
        for number, (name, options) in enumerate(OPTIONS.items()):
            asked = ["--task", name, "--options", json.dumps(options), "--problems", "4"]
            out = tmp_path / f"{number}.json"
            stepback("evaluate", *asked, "--strategies", "greedy", "--url", url, "--out", out)
            assert out.is_file()
