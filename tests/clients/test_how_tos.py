"""Code on the pages that uses OpenAI's clients runs as it stands there."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.serving import ROOT

HERE = Path(__file__).parent
_BLOCK = re.compile(
    r"<!-- run by tests/clients/test_how_tos\.py -->\n+```(?P<kind>\w+)\n(?P<code>.*?)\n```",
    re.DOTALL,
)
BLOCKS = [
    (found["kind"], found["code"])
    for page in ("docs/openai.md", "docs/jobs.md")
    for found in _BLOCK.finditer((ROOT / page).read_text(encoding="utf-8"))
]
PROBLEMS = [{"numbers": [4, 16, 25, 82], "target": 95}, {"numbers": [1, 2, 3, 4], "target": 10}]


@pytest.mark.parametrize(("kind", "code"), BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_runs(kind: str, code: str, url: str, tmp_path: Path) -> None:
    for name in ("countdown.yaml", "countdown.py"):
        shutil.copy(HERE / name, tmp_path)
    (tmp_path / "problems.jsonl").write_text("\n".join(map(json.dumps, PROBLEMS)))
    line = {"custom_id": "a", "method": "POST", "url": "/solve"}
    body = {"task": "countdown", "problem": PROBLEMS[0]}
    (tmp_path / "in.jsonl").write_text(json.dumps(line | {"body": body}))
    program = [sys.executable, "-c"] if kind == "python" else ["bash", "-euc"]
    binaries = str(Path(sys.executable).parent)
    run = subprocess.run(
        [*program, code.replace("http://127.0.0.1:8000", url)],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{binaries}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "95" in run.stdout or kind != "python"


def test_every_client_has_a_block() -> None:
    page = "\n".join(code for _, code in BLOCKS)
    for client in ("openai", "langchain_openai", "litellm", "local-completions", "local-chat"):
        assert client in page
