"""The journal: what is on disk is whole, and of one evaluation."""

import re
from pathlib import Path

import pytest

from stepback_core.errors import InvalidInput
from stepback_core.schemas import Strategy
from stepback_training.evaluate.plan import Setting
from stepback_training.evaluate.scoring import ProblemOutcome
from stepback_training.generators import Split
from stepback_training.sampling.journal import opened
from tests.training.evaluate.made import outcome

GREEDY = Setting(strategy=Strategy.GREEDY)
KEY = ("greedy", Split.TEST_SEEN, 0)
IDENTITY = {"plan": {"seed": 1, "splits": ("test_seen",)}}


def test_outcomes_are_there_again_and_a_cut_line_is_not(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "e.jsonl"
    kept = outcome(GREEDY, right=True, tokens=7)
    with opened(path, IDENTITY, ProblemOutcome) as journal:
        journal.begin_run({"began": "now"})
        journal.add(KEY, kept)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"setting": "greedy", "split"')
    with opened(path, IDENTITY, ProblemOutcome) as journal:
        assert journal.outcomes == {KEY: kept}
        assert journal.runs == [{"began": "now"}]
        journal.add(("greedy", Split.TEST_SEEN, 1), kept)
    assert path.read_bytes().startswith(whole)
    with opened(path, IDENTITY, ProblemOutcome) as journal:
        assert len(journal.outcomes) == 2


def test_another_evaluation_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    with opened(path, IDENTITY, ProblemOutcome):
        pass
    other = {"plan": {"seed": 2, "splits": ("test_seen",)}}
    with (
        pytest.raises(InvalidInput, match=r"another plan.seed \(1, now 2\)"),
        opened(path, other, ProblemOutcome),
    ):
        pass


def test_two_processes_cannot_hold_one(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    with (
        opened(path, IDENTITY, ProblemOutcome),
        pytest.raises(InvalidInput, match="another process"),
        opened(path, IDENTITY, ProblemOutcome),
    ):
        pass


@pytest.mark.parametrize("content", ["a text\n", "[1]\n", '{"format": 9}\n'])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text(content)
    with (
        pytest.raises(InvalidInput, match=re.escape(path.name)),
        opened(path, IDENTITY, ProblemOutcome),
    ):
        pass
    assert path.read_text() == content


def test_a_line_that_is_no_outcome_is_named(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    with opened(path, IDENTITY, ProblemOutcome) as journal:
        journal.begin_run({})
    with path.open("a") as file:
        file.write('{"setting": "greedy", "split": "test_seen", "number": 0, "outcome": {}}\n')
    with (
        pytest.raises(InvalidInput, match=r"e.jsonl, line 3: not an outcome"),
        opened(path, IDENTITY, ProblemOutcome),
    ):
        pass


def test_what_a_process_added_can_be_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    kept = outcome(GREEDY, right=True, tokens=7)
    with opened(path, IDENTITY, ProblemOutcome) as journal:
        journal.add(KEY, kept)
    before = path.read_bytes()
    with opened(path, IDENTITY, ProblemOutcome) as journal:
        journal.begin_run({"began": "later"})
        journal.add(("greedy", Split.TEST_SEEN, 1), kept)
        journal.take_back()
    assert path.read_bytes() == before
