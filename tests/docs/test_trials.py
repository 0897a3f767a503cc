"""The page of trials, `make trials` and the trials themselves name the same ones."""

import re

from tests.conftest import ROOT
from tests.trials.jobs import TRIALS


def test_make_trials_runs_every_trial_and_the_page_has_it() -> None:
    files = (ROOT / "tests/trials").glob("*.py")
    alone = {each.stem for each in files if "def main(" in each.read_text()} - {"jobs"}
    rule = re.search(r"^trials:.*?\n\n", (ROOT / "Makefile").read_text(), re.M | re.S)
    assert rule is not None
    run = [set(names.split()) for names in re.findall(r"for trial in (.+?);", rule[0])]
    assert run == [alone, set(TRIALS)]
    page = (ROOT / "docs/operations/trials.md").read_text().partition("## Reached")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.M)) == alone | set(TRIALS)
