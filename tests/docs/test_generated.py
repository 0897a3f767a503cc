"""The operators' reference pages are those that the code would write."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_no_page_is_stale() -> None:
    run = subprocess.run(
        [sys.executable, ROOT / "docs/generate.py", "--check"],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_every_row_of_a_table_has_as_many_cells_as_its_head(page: Path) -> None:
    for table in _tables(page.read_text()):
        assert {_cells(row) for row in table} == {_cells(table[0])}, table


def _tables(text: str) -> list[list[str]]:
    """Runs of lines up to a blank one that begin with a head and its rule."""
    blocks = [block.splitlines() for block in text.split("\n\n")]
    return [lines for lines in blocks if len(lines) > 1 and re.fullmatch(r"\|[-:| ]+\|", lines[1])]


def _cells(row: str) -> int:
    """Cells of a row; none in a line that is no row. A bar in code or behind a backslash is
    text."""
    if not (row.startswith("|") and row.endswith("|")):
        return 0
    return re.sub(r"`[^`]*`|\\\\.", "", row).count("|") - 1
