"""The report of the arms: every row once, and B's marker against the other's best."""

import pytest

from tests.benchmarks.arm_report import report
from tests.benchmarks.rows import RULES, Asked, Row


def _row(name: str, budget: int = 40, **right: str) -> Row:
    """A row of three problems; each rule's marks are a letter each, `y` for right."""
    marks = {rule: right.get(rule, "nnn") for rule in (*RULES, "checker")}
    return Row(
        f"{name}, {budget}",
        "arm",
        [Asked({rule: marks[rule][at] == "y" for rule in marks}, 10, 20, 5, 1) for at in range(3)],
        budget,
    )


def test_each_search_of_b_by_the_marker_meets_the_others_best(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = {
        ("A", 1): [_row("greedy"), _row("best-of-N", vote="ynn", checker="yyn")],
        ("B", 1): [_row("greedy"), _row("best-of-N", marker="nyy", checker="yyy")],
    }
    report(rows)
    table, pairs = capsys.readouterr().out.strip().split("\n\n")
    assert "| B | 1 | best-of-N, 40 | 0.0 (0 to 56) | 0.0 (0 to 56) | 66.7 (21 to 94) |" in table
    assert table.splitlines()[-1].endswith("| 10 | 25 |")
    best = "| 1 | best-of-N, 40, marker | A, best-of-N, 40, vote | +33.3 | 2 / 1 | 1 |"
    assert pairs.count(best) == 2  # against the same search's best, and against all searches'
    assert "| 1 | greedy, 40, marker | A, best-of-N, 40, vote | -33.3 | 0 / 1 | 1 |" in pairs
    assert "| 1 | best-of-N, 40, any | A, best-of-N, 40, any | +33.3 | 1 / 0 | 1 |" in pairs


def test_a_best_search_is_one_of_the_same_budget(capsys: pytest.CaptureFixture[str]) -> None:
    report(
        {
            ("A", 1): [_row("greedy", vote="ynn"), _row("greedy", 160, vote="yyy")],
            ("B", 1): [_row("greedy"), _row("greedy", 160)],
        }
    )
    pairs = capsys.readouterr().out.strip().split("\n\n")[1]
    assert "greedy, 40, marker | A, greedy, 40, vote |" in pairs
    assert "greedy, 40, marker | A, greedy, 160" not in pairs


def test_without_b_there_is_nothing_to_compare(capsys: pytest.CaptureFixture[str]) -> None:
    report({("blind", 0): [_row("greedy")]})
    assert "against" not in capsys.readouterr().out


def test_with_the_checker_no_rule_chooses(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {
        ("A", 1): [_row("best-first", checker="ynn")],
        ("B", 1): [_row("best-first", checker="yyn")],
    }
    report(rows, ())
    table, pairs = capsys.readouterr().out.strip().split("\n\n")
    assert table.splitlines()[0] == "| arm | seed | search, tokens | any | generated | forwarded |"
    assert pairs.splitlines()[2:] == [
        "| 1 | best-first, 40, any | A, best-first, 40, any | +33.3 | 1 / 0 | 1 |"
    ]
