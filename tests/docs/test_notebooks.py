"""The notebooks run from their first cell to their last."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import warm

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# What a notebook starts begins warm.
_WARM = f"import sys\nsys.executable = {warm.python()!r}"


# Of all held-out prompts a test asks a few: enough to see that the cell works.
_ALL, _FEW = "map(is_right, traces)", "map(is_right, traces[:4])"


def code(notebook: Path) -> str:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook: Path, server: str, tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{_WARM}\n{code(notebook).replace(_ALL, _FEW)}"],
        cwd=tmp_path,
        env=os.environ | {"STEPBACK_URL": server, "NOTEBOOK_FOLDER": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(notebook: Path) -> None:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    assert not [cell for cell in cells if cell.get("outputs")]


def test_the_cell_that_asks_all_held_out_prompts_is_there() -> None:
    assert "".join(map(code, NOTEBOOKS)).count(_ALL) == 1


def test_the_page_of_traces_asks_the_held_out_prompts_as_the_notebook_does() -> None:
    page = (ROOT / "docs/tasks.md").read_text(encoding="utf-8")
    fence = r"run by tests/docs/test_notebooks.py -->\n```python\n.*?\n(lines = .*?)\n```"
    block = re.search(fence, page, re.DOTALL)
    assert block and block[1] in code(ROOT / "notebooks/own_task.ipynb")


def test_the_page_of_traces_shows_the_recipe_as_it_is() -> None:
    page = (ROOT / "docs/tasks.md").read_text(encoding="utf-8")
    recipe = (ROOT / "training/recipes/traces.toml").read_text(encoding="utf-8")
    _, _, settings = recipe.partition("\n\n")
    assert f"```toml\n{settings}```" in page


@pytest.mark.timeout(900)
def test_readmes_traces_become_a_checkpoint_by_its_commands(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(
        r"Your own task\n.*?\n```\n(.*?)\n```\n.*?```sh\n(.*?)\n```", readme, re.DOTALL
    )
    assert block
    traces, (data, train, serve, solve) = block[1], block[2].splitlines()
    (tmp_path / "sorting.jsonl").write_text(traces)
    recipe = tmp_path / "training/recipes/traces.toml"
    recipe.parent.mkdir(parents=True)
    whole = (ROOT / "training/recipes/traces.toml").read_text(encoding="utf-8")
    # Enough to see that a checkpoint comes of it; a whole training is the notebook's.
    recipe.write_text(whole.replace("samples = 8_000", "samples = 400"))
    run = subprocess.run(
        ["bash", "-euc", f"{data}\n{train}"],
        cwd=tmp_path,
        env=os.environ | {"PATH": warm.search_path()},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert (tmp_path / "run/model/stepback.json").exists()
    # The notebook serves such a checkpoint and asks it.
    page = (ROOT / "docs/tasks.md").read_text(encoding="utf-8")
    assert "\n".join((data, train, serve, solve)) in page
