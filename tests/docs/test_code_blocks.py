"""Code on the pages: Python and `sh` blocks run, other commands name flags that exist."""

import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(
    r"(<!-- (?P<why>[^\n]*?) -->\n+)?```(?P<kind>\w*)\n(?P<code>.*?)\n```", re.DOTALL
)
_URL = "http://127.0.0.1:8000"
_TESTED_BY = re.compile(r"run by (tests/\S+\.py)")
_MENTIONED = re.compile(
    r"(?:^|[`(]|\$ |/bin/)stepback (?P<name>[a-z]+)(?P<rest>[^`|>#&;)]*)", re.MULTILINE
)


def blocks(kind: str) -> list[tuple[str, str, str]]:
    """Page, comment before it, and code of each block of a kind."""
    return [
        (page.relative_to(ROOT).as_posix(), found["why"] or "", found["code"])
        for page in PAGES
        for found in _BLOCK.finditer(page.read_text(encoding="utf-8"))
        if found["kind"] == kind
    ]


def cases(kind: str) -> list[Any]:
    return [
        pytest.param(*block, id=f"{block[0]}:{number}") for number, block in enumerate(blocks(kind))
    ]


def is_run_elsewhere(why: str) -> bool:
    """True for a block whose comment names the test that runs it, or why it cannot run here."""
    if tested_by := _TESTED_BY.search(why):
        assert (ROOT / tested_by[1]).is_file(), why
        return True
    return why.startswith("not run: ")


@pytest.mark.parametrize(("page", "why", "code"), cases("python"))
def test_a_python_block_runs(page: str, why: str, code: str, server: str, tmp_path: Path) -> None:
    if is_run_elsewhere(why):
        return
    code = code.replace(_URL, server).replace("Client()", f'Client("{server}")')
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert run.returncode == 0, f"{page}:\n{run.stderr}"


@pytest.mark.parametrize(("page", "why", "code"), cases("sh"))
def test_a_shell_block_runs(page: str, why: str, code: str, server: str, tmp_path: Path) -> None:
    if is_run_elsewhere(why):
        return
    binaries = str(Path(sys.executable).parent)
    run = subprocess.run(
        ["bash", "-euc", code.replace(_URL, server)],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{binaries}:{os.environ['PATH']}", "STEPBACK_URL": server},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert run.returncode == 0, f"{page}:\n{run.stderr}"


@cache
def help_of(*command: str) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "stepback_client.cli", *command, "--help"],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert run.returncode == 0, f"stepback {' '.join(command)}: no such command"
    return run.stdout


def commands(page: Path) -> list[list[str]]:
    """Every `stepback ...` of a page, as words, in blocks and in sentences."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    found: list[list[str]] = []
    for match in _MENTIONED.finditer(text):
        line = match["rest"].split("\n")[0]
        try:
            words = shlex.split(line)
        except ValueError:  # an apostrophe of prose
            words = line.split()
        found.append([match["name"], *words])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_has_the_flags_that_a_page_names(page: Path) -> None:
    for name, *words in commands(page):
        flags = {word.split("=")[0].rstrip(".,:") for word in words if word.startswith("--")}
        if not flags:
            continue
        nested = [word for word in words[:1] if name in {"keys", "task", "db"}]
        known = help_of(name, *nested)
        missing = {flag for flag in flags if flag not in known}
        assert not missing, f"stepback {name} has no {missing}"
