"""The page of the structure: its tree is that of the repository."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/structure.md"
_NAME = re.compile(r"(?<![\w/*.-])(?:\w+\.(?:py|yaml)|(?:\w+/)+)(?![\w*])")
_COLUMN = 29
"""Width of the tree's column of names; a description may have names too."""


def sections() -> dict[Path, list[str]]:
    """Return the lines of the tree by the folder that they are about."""
    tree = re.search(r"```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert tree
    found: dict[Path, list[str]] = {}
    for line in tree[1].splitlines():
        if not line.startswith(" "):
            found[ROOT / line.split()[0]] = []
        found[[*found][-1]].append(line)
    return found


SECTIONS = sections()
PACKAGES = [folder for folder in SECTIONS if "stepback_" in folder.name]


def is_in(folder: Path, name: str) -> bool:
    """True if a path below a folder, or the folder itself, ends in the name."""
    parts = Path(name).parts
    below = (
        path for path in (folder, *folder.rglob(parts[-1])) if path.parts[-len(parts) :] == parts
    )
    return any(below)


def test_the_tree_is_of_the_four_packages() -> None:
    assert len(PACKAGES) == 4


@pytest.mark.parametrize("folder", SECTIONS, ids=lambda folder: folder.name)
def test_what_the_tree_names_exists(folder: Path) -> None:
    names = [name for line in SECTIONS[folder] for name in _NAME.findall(line)]
    assert names
    assert not [name for name in names if not is_in(folder, name) and not (ROOT / name).exists()]


@pytest.mark.parametrize("folder", PACKAGES, ids=lambda folder: folder.name)
def test_every_folder_is_in_the_tree(folder: Path) -> None:
    named = {name.strip("/") for line in SECTIONS[folder] for name in line[:_COLUMN].split()}
    folders = {path.parent.name for path in folder.glob("*/*.*") if path.parent.name[0] != "_"}
    assert not folders - named
