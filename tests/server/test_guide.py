"""The documentation at /guide/: its policy, what is not there, and a server without it."""

import base64
import hashlib
from pathlib import Path

import pytest

from stepback_core.errors import InvalidInput
from tests.server.test_edge import ask, code

SCRIPT = "document.title = 'guide'"
PAGE = f"<html><script>{SCRIPT}</script><script src='a.js'></script></html>"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "concepts").mkdir()
    (tmp_path / "index.html").write_text(PAGE)
    (tmp_path / "concepts/tree.html").write_text("<html>a tree</html>")
    (tmp_path / "404.html").write_text("<html><link href='/style.css'></html>")
    return tmp_path


def test_the_guide_is_served_with_a_policy_that_names_its_own_scripts(site: Path) -> None:
    bare, index, page = ask(
        ("GET", "/guide", {}),
        ("GET", "/guide/", {}),
        ("GET", "/guide/concepts/tree.html", {}),
        guide_dir=site,
    )
    assert (bare.status_code, bare.headers["Location"]) == (307, "./guide/")
    assert (index.status_code, index.text) == (200, PAGE)
    assert page.text == "<html>a tree</html>"
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    for answer in (index, page):
        policy = answer.headers["Content-Security-Policy"]
        assert f"script-src 'self' 'sha256-{digest}';" in policy and "unsafe" not in policy


def test_a_picture_may_use_the_style_inside_it_and_nothing_else(site: Path) -> None:
    (site / "tree.svg").write_text("<svg><style>text { fill: red }</style></svg>")
    [answer] = ask(("GET", "/guide/tree.svg", {}), guide_dir=site)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'; style-src 'unsafe-inline'" in policy and "script" not in policy


@pytest.mark.parametrize("path", ["/guide", "/guide/", "/guide/concepts/tree.html", "/guide/no"])
def test_head_is_as_get(site: Path, path: str) -> None:
    got, head = ask(("GET", path, {}), ("HEAD", path, {}), guide_dir=site)
    assert head.status_code == got.status_code and head.content == b""


@pytest.mark.parametrize("path", ["/guide/no", "/guide/concepts/no.html", "/guide/%2e%2e/x"])
def test_a_page_that_is_not_there_leads_to_those_that_are(site: Path, path: str) -> None:
    [answer] = ask(("GET", path, {}), guide_dir=site)
    assert (answer.status_code, code(answer)) == (404, "no_such_path")
    assert "/guide/ has them all" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/guide", "/guide/", "/guide/concepts/tree.html"])
def test_a_server_without_a_guide_says_how_to_get_one(path: str) -> None:
    [answer] = ask(("GET", path, {}))
    assert (answer.status_code, code(answer)) == (404, "no_such_path")
    assert "make site" in answer.json()["error"]["message"]


def test_a_folder_that_is_no_site_ends_the_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"STEPBACK_GUIDE_DIR: .*make site"):
        ask(guide_dir=tmp_path)
