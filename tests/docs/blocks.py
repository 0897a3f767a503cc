"""Fenced blocks of README and docs/, with the comment before each."""

import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(
    r"(<!-- (?P<why>[^\n]*?) -->\n+)?"
    r"^(?P<indent> *)```(?P<kind>\w*)\n(?P<code>.*?)\n(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    page: str
    kind: str
    why: str
    """The comment before it: the test that runs it, or why it cannot run."""
    code: str


def blocks(*kinds: str) -> list[Block]:
    """The blocks of some kinds, or of all, page by page."""
    found = [
        Block(
            page.relative_to(ROOT).as_posix(),
            match["kind"],
            match["why"] or "",
            dedent(match["code"]),
        )
        for page in PAGES
        for match in _BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]
    return [block for block in found if not kinds or block.kind in kinds]
