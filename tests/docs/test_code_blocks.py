"""Code on the pages: it runs, or a comment before it says which test runs it, or why none does."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from stepback_server.scorers.config import read_entries
from stepback_training.config.data import DataRecipe
from tests import warm
from tests.docs.blocks import PAGES, ROOT, Block, blocks

_URL = "http://127.0.0.1:8000"
_WHY = re.compile(r"run by tests/\S+\.py|not run: \w")
_TEST = re.compile(r"tests/[\w/]+\.py")
_COMMAND = re.compile(
    r"^(?:\$ )?(?:[A-Z_]+=\S+ )*(?:stepback|python|make|pip|curl|docker|export|source) ",
    re.MULTILINE,
)
_MENTIONED = re.compile(
    r"(?:^|[`(]|\$ |/bin/)stepback (?P<name>[a-z]+)(?P<rest>[^`|>#&;)]*)", re.MULTILINE
)


def cases(*kinds: str) -> list[Any]:
    found = enumerate(blocks(*kinds))
    return [pytest.param(block, id=f"{block.page}:{number}") for number, block in found]


def is_run_elsewhere(why: str) -> bool:
    """True for a block whose comment names the test that runs it, or why it cannot run here."""
    missing = [name for name in _TEST.findall(why) if not (ROOT / name).is_file()]
    assert not missing, why
    return bool(_WHY.match(why))


@pytest.mark.parametrize("block", cases("python"))
def test_a_python_block_runs(block: Block, server: str, tmp_path: Path) -> None:
    if is_run_elsewhere(block.why):
        return
    code = block.code.replace(_URL, server).replace("Client()", f'Client("{server}")')
    _run(block.page, [sys.executable, "-W", "error", "-c", code], tmp_path, server)


@pytest.mark.parametrize("block", cases("sh"))
def test_a_shell_block_runs(block: Block, server: str, tmp_path: Path) -> None:
    if is_run_elsewhere(block.why):
        return
    _run(block.page, ["bash", "-euc", block.code.replace(_URL, server)], tmp_path, server)


@pytest.mark.parametrize("block", cases("console"))
def test_what_a_console_block_types_runs(block: Block, server: str, tmp_path: Path) -> None:
    for typed in re.split(r"^\$ ", block.code, flags=re.M)[1:]:
        command, _, shown = typed.partition("\n")
        if command.startswith("cat "):
            (tmp_path / command.removeprefix("cat ")).write_text(shown)
        else:
            _run(block.page, ["bash", "-euc", command], tmp_path, server)


def _run(page: str, command: list[str], folder: Path, server: str) -> None:
    run = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PATH": warm.search_path(), "STEPBACK_URL": server},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert run.returncode == 0, f"{page}:\n{run.stderr}"


KINDS = {"python", "sh", "console", "bash", "json", "toml", "yaml", "text", ""}
"""`bash` has commands that a test cannot run as they stand; `text` and "" are to be looked at."""


def test_every_block_says_what_it_is() -> None:
    assert {block.kind for block in blocks()} <= KINDS
    assert not [block for block in blocks("") if _COMMAND.search(block.code)]


@pytest.mark.parametrize("block", cases("bash"))
def test_a_bash_block_says_which_test_runs_it_or_why_none_does(block: Block) -> None:
    assert is_run_elsewhere(block.why), f"{block.page}:\n{block.code}"


def _as_file(read: Callable[[Path], object]) -> Callable[[str, Path], object]:
    def written(code: str, folder: Path) -> object:
        path = folder / "file.toml"
        path.write_text(code)
        return read(path)

    return written


def _data(code: str, _: Path) -> object:
    tables = tomllib.loads(code)
    return DataRecipe.model_validate(tables["data"]) if "data" in tables else tables


_READERS: dict[str, Callable[[str, Path], object]] = {
    "docs/own-checker.md": _as_file(read_entries),
    "docs/scorers.md": _as_file(read_entries),
    "docs/security.md": _data,
    "docs/tasks.md": _data,
    "docs/training.md": _data,
}


@pytest.mark.parametrize("block", cases("toml"))
def test_a_toml_block_is_taken_by_what_reads_it(block: Block, tmp_path: Path) -> None:
    assert _READERS[block.page](block.code, tmp_path)


@pytest.mark.parametrize("block", cases("json", "yaml"))
def test_a_json_or_yaml_block_is_well_formed(block: Block) -> None:
    assert json.loads(block.code) if block.kind == "json" else yaml.safe_load(block.code)


@pytest.mark.parametrize("block", cases("bash"))
def test_what_a_command_names_exists(block: Block) -> None:
    """Targets of make, modules of Python and files of the repository; the next test has flags."""
    text = re.sub(r"\\\n", " ", block.code)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(re.findall(r"^make ([\w-]+)", text, re.M)) <= {*targets}
    for module in re.findall(r"-m ((?:tests|stepback_\w+)[\w.]+)", text):
        top = {"tests": ROOT, "stepback_client": ROOT / "client"}[module.split(".")[0]]
        path = top.joinpath(*module.split("."))
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
    for name in re.findall(r"(?:^|[\s=])((?:deploy|docs|models|tests|training)/[\w./-]+)", text):
        assert (ROOT / name).exists(), name


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
