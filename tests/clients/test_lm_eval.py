"""lm-eval by both of its models of OpenAI's API: its accuracy is that of `stepback evaluate`."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import MODEL
from tests.serving import STEPBACK

HERE = Path(__file__).parent
PROBLEMS = 50
GREEDY = f"{MODEL}:greedy"


@pytest.fixture(scope="module")
def evaluated(url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `stepback evaluate` writes about greedy decoding of held-out problems."""
    out = tmp_path_factory.mktemp("evaluated") / "evaluation.json"
    command = [STEPBACK, "evaluate", "--url", url, "--task", "countdown", "--split", "seen"]
    command += ["--problems", str(PROBLEMS), "--strategies", "greedy", "--in-flight", "8"]
    _run([*command, "--no-picture", "--out", out], out.parent)
    found: dict[str, Any] = json.loads(out.read_text())
    return found


@pytest.fixture(scope="module")
def tasks(evaluated: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with lm-eval's task, and those problems."""
    folder = tmp_path_factory.mktemp("tasks")
    for name in ("countdown.yaml", "countdown.py"):
        shutil.copy(HERE / name, folder)
    [prompts] = evaluated["problems"].values()
    with (folder / "problems.jsonl").open("w") as lines:
        for prompt in prompts:
            numbers, _, target = prompt.removeprefix("countdown:").partition("=")
            row = {"numbers": [int(each) for each in numbers.split(",")], "target": int(target)}
            lines.write(json.dumps(row) + "\n")
    return folder


@pytest.mark.parametrize(
    ("kind", "path", "flags"),
    [
        ("local-completions", "completions", []),
        ("local-completions", "completions", ["--batch_size", "4"]),
        ("local-chat-completions", "chat/completions", ["--apply_chat_template"]),
    ],
)
def test_its_accuracy_is_that_of_stepback_evaluate(
    evaluated: dict[str, Any],
    tasks: Path,
    base_url: str,
    tmp_path: Path,
    kind: str,
    path: str,
    flags: list[str],
) -> None:
    arguments = f"model={GREEDY},base_url={base_url}/{path},num_concurrent=8,max_retries=1"
    command = [Path(sys.executable).with_name("lm_eval"), "--model", kind, *flags]
    command += ["--model_args", arguments, "--tasks", "countdown", "--include_path", tasks]
    _run([*command, "--output_path", tmp_path], tasks)
    [results] = tmp_path.rglob("results_*.json")
    found = json.loads(results.read_text())["results"]["countdown"]
    [row] = evaluated["rows"]
    judged = row["accuracy"]["perplexity"]["strict"]
    assert found["acc,none"] * PROBLEMS == pytest.approx(judged["hits"])
    # Some fail, so that the two could differ.
    assert PROBLEMS // 2 < judged["hits"] < PROBLEMS == judged["of"]


def _run(command: list[Any], folder: Path) -> None:
    words = list(map(str, command))
    run = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
