"""The table of an evaluation: each number stands under the head that says what it is."""

from stepback_training.evaluate.scoring import Rule
from tests.training.evaluate.made import Setting, Strategy, evaluation

GREEDY = Setting(strategy=Strategy.GREEDY)
SAMPLES = Setting(strategy=Strategy.BEST_OF_N, breadth=4)
VERIFIED = Setting(strategy=Strategy.BEST_OF_N, breadth=4, until_verified=True)


def cells(*settings: Setting) -> list[dict[str, str]]:
    """Rows of a table, by the heads of their columns."""
    head, rule, *lines = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in evaluation(*settings).table().splitlines()
    )
    assert set(rule) == {"---"} and len(rule) == len(head)
    return [dict(zip(head, line, strict=True)) for line in lines]


def test_every_cell_has_its_head() -> None:
    row = cells(GREEDY, SAMPLES)[2]
    assert row["problems"] == "seen" and row["tokens"] == "200"
    for head in ("by perplexity", "by vote", "by marker", "by weighted vote", "likeliest legal"):
        assert row[head] == "10.0 (2 to 40)", head
    assert row["verified"] == "" and row["pass@N"] == "100.0 (72 to 100)"
    assert row["lax, by perplexity"] == "10.0"


def test_a_search_that_the_checker_ends_has_one_number() -> None:
    row = cells(GREEDY, VERIFIED)[2]
    assert row["verified"] == "10.0 (2 to 40)"
    assert row["by marker"] == row["likeliest legal"] == row["lax, by perplexity"] == ""


def test_every_rule_has_a_column() -> None:
    heads = " ".join(cells(SAMPLES)[0])
    assert all(rule.value.replace("_", " ") in heads for rule in Rule)
