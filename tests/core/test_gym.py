"""The bridge to reasoning-gym, without the library; `make gym-test` has it."""

import sys
import tomllib
from pathlib import Path

import pytest

from stepback_core.errors import InvalidInput
from stepback_core.tasks.gym import from_json, to_json
from stepback_core.tasks.plugins import CHECKERS, find

ROOT = Path(__file__).parents[2]


def entry_points_of_the_project(folder: Path) -> None:
    """Install the project's own entry points as they are written now."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    info = folder / "written_now-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: written_now\nVersion: 0.1\n")
    value = project["entry-points"][CHECKERS]["gym"]
    (info / "entry_points.txt").write_text(f"[{CHECKERS}]\ngym = {value}\n")


def test_without_the_extra_the_error_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry_points_of_the_project(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    [plugin] = find(["gym:countdown"])
    with pytest.raises(InvalidInput, match=r'gym:countdown .*pip install "stepback-llm\[gym\]"'):
        plugin.load()


@pytest.mark.parametrize(
    "value",
    [
        {"grid": ((1, 2), [3, (4,)]), "none": None, "share": 0.5},
        {1: "one", (2, 3): {"x", "y"}},
        {"$tuple": [1]},
        [True, False, "text", {}],
    ],
)
def test_a_value_comes_back_from_its_json(value: object) -> None:
    assert from_json(to_json(value)) == value
