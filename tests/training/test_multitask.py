"""One model for several tasks and traces of the user's own: data, training, export, serving."""

import json
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from stepback_client import Client, Status
from stepback_server.checkpoint import Checkpoint
from stepback_training.data.samples import read_samples
from stepback_training.data.traces import is_held_out
from stepback_training.generators import GENERATORS, Split
from tests import warm
from tests.conftest import controller

RECIPE = """
name = "several"
[data]
samples = 2000
tasks = [
  {{ name = "countdown" }},
  {{ name = "maze", options = {{ smallest = 3, largest = 4 }} }},
  {{ name = "sudoku" }},
  {{ name = "traces", files = ["{traces}"], share = 0.5 }},
]
[scratch]
hidden_size = 64
intermediate_size = 128
layers = 2
heads = 2
[train]
learning_rate = 1e-3
epochs = 0.5
batch_tokens = 2048
"""


FEW_TOKENS = 300
"""A model that was trained so shortly spends all that it is allowed."""


def run(*arguments: str | Path) -> None:
    done = warm.stepback(*arguments)
    assert done.returncode == 0, done.stderr[-3000:]


def write_traces(path: Path) -> list[str]:
    """Traces with a character that is not ASCII; gives the prompts that training may see."""
    words = [f"{a}{b}é" for a in "abcdefgh" for b in "ijkl"]
    lines = [{"prompt": f"spell {word}", "steps": list(word)} for word in words]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return [prompt for word in words if not is_held_out(prompt := f"spell {word}")]


def check_the_picture(url: str, path: Path) -> None:
    """`stepback solve` draws the maze, however far an untrained model gets in it."""
    path.write_text(GENERATORS["maze"].checker.example.model_dump_json())
    asked = "--problem", path, "--url", url, "--breadth", "2", "--tokens", str(FEW_TOKENS)
    done = warm.stepback("solve", "--task", "maze", *asked)
    assert done.returncode in (0, 1), done.stderr
    assert "#########\n#   #" in done.stdout and "tokens" in done.stdout


@pytest.mark.timeout(900)
def test_one_model_for_several_tasks_from_data_to_answers(tmp_path: Path) -> None:
    traces = tmp_path / "mine.jsonl"
    prompts = write_traces(traces)
    recipe, samples = tmp_path / "recipe.toml", tmp_path / "samples.jsonl"
    recipe.write_text(RECIPE.format(traces=traces))
    run("data", "--recipe", recipe, "--out", samples)
    run("train", "--recipe", recipe, "--data", samples, "--out", tmp_path / "run")
    folder = tmp_path / "run/model"
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.manifest.tasks == ["countdown", "maze", "sudoku"]
    longest = checkpoint.manifest.task_answer_tokens
    assert set(longest) == {"countdown", "maze", "sudoku"}
    assert longest["countdown"] < max(longest.values()) <= checkpoint.longest_answer(None)
    for name in ("countdown", "maze", "sudoku", "traces"):
        assert f"{name}: " in checkpoint.manifest.split
    card = (folder / "README.md").read_text()
    assert "it knows: countdown, maze, sudoku" in card
    tokenizer = checkpoint.codec.tokenizer
    for sample in islice(read_samples(samples), 300):
        ids = tokenizer.encode("\n".join([sample.prompt, *sample.steps]))
        assert checkpoint.unknown_id not in ids
    with controller(tmp_path / "log.txt", folder) as url, Client(url) as client:
        for name in checkpoint.manifest.tasks:
            problem = next(GENERATORS[name].stream(Split.TEST_SEEN, Random(1)))
            result = client.solve(problem, breadth=2, tokens=FEW_TOKENS)
            assert result.usage.generated_tokens > 0
        check_the_picture(url, tmp_path / "maze.json")
        result = client.solve(prompt=prompts[0], breadth=2, tokens=FEW_TOKENS)
        assert result.status in (Status.UNVERIFIED, Status.UNSOLVED)
