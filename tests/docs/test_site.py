"""The documentation as a site: strict, and nothing in it comes from elsewhere."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MKDOCS = ROOT / ".cache/site/bin/mkdocs"
_LOADED = re.compile(r"""<(?:script|img|iframe)[^>]+src="https?://|<link[^>]+href="https?://""")


@pytest.mark.skipif(not MKDOCS.exists(), reason="`make site` makes the environment of mkdocs")
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    run = subprocess.run(
        [MKDOCS, "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) > 20
    assert not [page for page in pages if _LOADED.search(page.read_text(encoding="utf-8"))]


def test_every_concept_has_a_picture() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    concepts = re.search(r"  - Concepts:\n((?:      - .*\n)+)", nav)
    assert concepts
    pages = [line.rpartition(": ")[2] for line in concepts[1].splitlines()]
    assert len(pages) > 5
    for page in pages:
        assert re.search(r"^!\[", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.M), page
