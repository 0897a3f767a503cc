"""The distribution's name: `stepback` alone belongs to another project at the package index."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

NAME = "stepback-llm"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENDINGS = {".md", ".py", ".sh", ".toml", ".yaml", ".yml", ".txt", ".tpl", ".html", ".ipynb", ".cff"}
_FOREIGN = re.compile(
    r"""install[^\n|`]*[\ \t"']stepback(?=[\s"'`,;]|\[|==|$)  # pip, uv, conda
    | \bstepback\[(?!["'])                                  # an extra of the stranger's
    | (?<![\w./-])stepback/(?:controller|cpu|cuda)\b        # an image of the stranger's
    """,
    re.VERBOSE | re.MULTILINE,
)
_EXTRAS = re.compile(rf"(?:{NAME}|'\.)\[([\w,-]+)\]")


def pages() -> Iterator[tuple[Path, str]]:
    """Every text file that the repository keeps, or is about to, and its text."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        path = ROOT / name
        text = path.suffix in ENDINGS or path.name in {"Dockerfile", "Makefile"}
        if text and path.is_file() and path != Path(__file__):
            yield path, path.read_text("utf-8")


@pytest.mark.parametrize(
    "line",
    [
        "pip install stepback",
        "`pip install --upgrade 'stepback[server]'`",
        "uv pip install stepback==1.0",
        "install stepback, then",
        "docker run stepback/cpu:0.2.0",
    ],
)
def test_the_search_finds_what_must_not_be_there(line: str) -> None:
    assert _FOREIGN.search(line)


@pytest.mark.parametrize(
    "line",
    [
        "pip install 'stepback-llm[server]'",
        "helm install stepback deploy/helm/stepback",
        "docker run stepback-llm/cpu:0.2.0",
        "pip install --python /opt/stepback/bin/python x",
    ],
)
def test_the_search_lets_our_own_name_pass(line: str) -> None:
    assert not _FOREIGN.search(line.replace("helm install stepback", ""))


def test_nothing_tells_anybody_to_install_a_strangers_package() -> None:
    assert PROJECT["name"] == NAME
    for path, text in pages():
        # A chart's release may have any name.
        text = re.sub(r"helm (install|upgrade) \S+", "", text)
        found = [match.group() for match in _FOREIGN.finditer(text)]
        assert not found, f"{path}: {found}"


def test_every_extra_that_is_named_exists() -> None:
    seen: set[str] = set()
    for path, text in pages():
        for match in _EXTRAS.finditer(text):
            named = set(match.group(1).split(","))
            assert named <= PROJECT["optional-dependencies"].keys(), f"{path}: {match.group()}"
            seen |= named
    assert {"server", "training", "otel", "socks", "plot"} <= seen
