"""lm-eval by both of its models of OpenAI's API: its accuracy is that of `stepback evaluate`."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from conftest import MODEL
from lm_eval.tasks import TaskManager
from tests.serving import STEPBACK

HERE = Path(__file__).parent
PROBLEMS = 50
GREEDY = f"{MODEL}:greedy"


@pytest.fixture(scope="module")
def evaluated(url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Report of `stepback evaluate` on greedy decoding of held-out problems."""
    out = tmp_path_factory.mktemp("evaluated") / "evaluation.json"
    command = [STEPBACK, "evaluate", "--url", url, "--task", "countdown", "--split", "seen"]
    command += ["--problems", str(PROBLEMS), "--strategies", "greedy", "--in-flight", "8"]
    words = [*map(str, command), "--no-picture", "--out", str(out)]
    run = subprocess.run(words, cwd=out.parent, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
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
    ("kind", "path", "options"),
    [
        ("local-completions", "completions", {"batch_size": 1}),
        ("local-completions", "completions", {"batch_size": 4}),
        ("local-chat-completions", "chat/completions", {"apply_chat_template": True}),
    ],
)
def test_its_accuracy_is_that_of_stepback_evaluate(
    evaluated: dict[str, Any],
    tasks: Path,
    base_url: str,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    path: str,
    options: dict[str, Any],
) -> None:
    monkeypatch.chdir(tasks)
    answer = lm_eval.simple_evaluate(
        model=kind,
        model_args=f"model={GREEDY},base_url={base_url}/{path},num_concurrent=8,max_retries=1",
        tasks=["countdown"],
        # The command reads its thousands of own tasks at each start; the page's block does so.
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=0,
        **options,
    )
    accuracy = answer["results"]["countdown"]["acc,none"]
    [row] = evaluated["rows"]
    judged = row["accuracy"]["perplexity"]["strict"]
    assert accuracy * PROBLEMS == pytest.approx(judged["hits"])
    # Some fail, so that the two could differ.
    assert PROBLEMS // 2 < judged["hits"] < PROBLEMS == judged["of"]
