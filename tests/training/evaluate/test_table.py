"""The table of an evaluation: each number stands under the head that says what it is."""

import pytest

from stepback_training.evaluate.scoring import Rule
from tests.training.evaluate.made import Setting, Strategy, evaluation

GREEDY = Setting(strategy=Strategy.GREEDY)
SAMPLES = Setting(strategy=Strategy.BEST_OF_N, breadth=4)
VERIFIED = Setting(strategy=Strategy.BEST_OF_N, breadth=4, until_verified=True)


HEADS = {
    Rule.PERPLEXITY: "by perplexity",
    Rule.VOTE: "by vote",
    Rule.MARKER: "by marker",
    Rule.WEIGHTED_VOTE: "by weighted vote",
    Rule.LEGAL: "likeliest legal",
    Rule.VERIFIED: "verified",
}


def cells(*settings: Setting, only: Rule | None = None) -> list[dict[str, str]]:
    """Rows of a table, by the heads of their columns."""
    head, rule, *lines = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in evaluation(*settings, only=only).table().splitlines()
    )
    assert set(rule) == {"---"} and len(rule) == len(head)
    return [dict(zip(head, line, strict=True)) for line in lines]


@pytest.mark.parametrize("rule", HEADS)
def test_each_rule_stands_under_its_head(rule: Rule) -> None:
    setting = VERIFIED if rule is Rule.VERIFIED else SAMPLES
    row = cells(GREEDY, setting, only=rule)[2]
    assert row["problems"] == "seen" and row["tokens"] == "200"
    right = {head for head in HEADS.values() if row[head] == "10.0 (2 to 40)"}
    assert right == {HEADS[rule]}
    if setting is SAMPLES:
        assert row["pass@N"] == "100.0 (72 to 100)"
        assert row["lax, by perplexity"] == ("10.0" if rule is Rule.PERPLEXITY else "0.0")


def test_a_search_that_the_checker_ends_has_one_number() -> None:
    row = cells(GREEDY, VERIFIED)[2]
    assert row["verified"] == "10.0 (2 to 40)"
    assert row["by marker"] == row["likeliest legal"] == row["lax, by perplexity"] == ""


def test_every_rule_has_a_column() -> None:
    assert {*HEADS} == {*Rule} and {*HEADS.values()} <= {*cells(SAMPLES)[0]}
