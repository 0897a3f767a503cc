"""`stepback solve --watch` and `stepback tree`, as a user runs them."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import httpx
import pytest

from tests import warm
from tests.client.test_command_line import stepback

PROBLEM = ["3", "5", "7", "25", "--target", "41", "--seed", "3", "--select", "perplexity"]
LIMITED = [*PROBLEM, "--tokens", "500"]
COLOURS = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def in_a_terminal(*arguments: str) -> tuple[int, str]:
    """Run the command with a pseudo-terminal as its output; gives its status and what it wrote."""
    leader, follower = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    process = warm.cold(
        warm.STEPBACK, *arguments, stdout=follower, stderr=follower, env=environment
    )
    os.close(follower)
    written = b""
    try:
        while chunk := os.read(leader, 65536):
            written += chunk
    except OSError:  # how Linux says that the other end was closed
        pass
    os.close(leader)
    return process.wait(timeout=300), written.decode()


def test_a_terminal_shows_the_tree_in_place_and_leaves_it_there(server: str) -> None:
    status, written = in_a_terminal("solve", *LIMITED, "--watch", "--url", server)
    assert status in (0, 1), written
    shown = COLOURS.sub("", written).replace("\r", "")
    assert "\x1b[?25l" in written, "the cursor is hidden while the tree is redrawn"
    assert re.search(r"├─ \d+ [↩⊘] ", shown) and re.search(r"[✓✗] \d+ (verified|refused)", shown)
    assert re.search(r"\x1b\[[0-9;]*9;?[0-9;]*m", written), "a step is struck out"
    assert re.search(r"(un)?solved.*: \d+ tokens, \d+ samples", shown.splitlines()[-1])


def test_a_pipe_gets_plain_lines(server: str) -> None:
    done = stepback("solve", *LIMITED, "--watch", "--url", server)
    assert "\x1b" not in done.stdout
    first, *lines = done.stdout.splitlines()
    assert first.startswith("started s-") and "best_first" in first
    assert any(re.fullmatch(r"[↩⊘] \d+: .*~[^~]+~", line) for line in lines)
    assert any(re.match(r"[✓✗] \d+: ", line) for line in lines)
    assert " tokens, " in lines[-1]


def test_watching_fails_as_solving_does(server: str) -> None:
    refused = stepback("solve", *LIMITED, "--watch", "--url", server, "--breadth", "1000")
    assert refused.returncode == 2
    [line] = refused.stderr.splitlines()
    assert "breadth" in line


@pytest.mark.parametrize("form", ["text", "mermaid", "svg"])
def test_a_tree_is_drawn_from_a_result_and_from_a_search(
    server: str, form: str, tmp_path: Path
) -> None:
    output = tmp_path / "tree.out"
    # One sample at a time: the only search that gives the same tree again.
    drawn = stepback(
        *["tree", *PROBLEM, "--breadth", "1", "--url", server, "--format", form, "-o", str(output)]
    )
    assert drawn.returncode == 0, drawn.stderr
    body = {"task": "countdown", "problem": {"numbers": [3, 5, 7, 25], "target": 41}, "tree": True}
    body |= {"seed": 3, "select": "perplexity", "candidates": 1024, "breadth": 1}
    file = tmp_path / "result.json"
    file.write_bytes(httpx.post(f"{server}/solve", json=body, timeout=300).content)
    from_file = stepback("tree", str(file), "--format", form)
    assert from_file.returncode == 0, from_file.stderr
    # The same but for the seconds in the caption.
    seconds = re.compile(r"\d+\.\d\d s|\d+ tokens")
    assert seconds.sub("", from_file.stdout) == seconds.sub("", output.read_text())
    if form == "svg":
        ElementTree.fromstring(from_file.stdout)


@pytest.mark.parametrize(
    ("given", "named"),
    [("{", "the result"), ('{"id": "s"}', "status"), ("no tree", "has no tree")],
)
def test_what_has_no_tree_is_refused_in_one_line(given: str, named: str, server: str) -> None:
    if given == "no tree":
        body = {"prompt": "countdown:3,5=15", "strategy": "greedy"}
        given = json.dumps(httpx.post(f"{server}/solve", json=body, timeout=300).json())
    done = subprocess.run(
        [sys.executable, "-m", "stepback_client.cli", "tree", "-"],
        input=given, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert named in line
