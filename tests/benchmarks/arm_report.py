"""The tables of the arms. `tests.benchmarks.arms` says what is compared."""

from collections.abc import Sequence

from stepback_training.sampling.statistics import Pairs
from tests.benchmarks.measuring import share
from tests.benchmarks.rows import RULES, Row

_SAID = {"checker": "any"}
"""Rules that are printed by another name than their key in a row."""


def report(rows: dict[tuple[str, int], list[Row]], rules: Sequence[str] = tuple(RULES)) -> None:
    """Print every row, then B against each other arm. Without `rules`, by *any* alone."""
    heads = " | ".join(["arm", "seed", "search, tokens", *rules, "any", "generated", "forwarded"])
    print(f"| {heads} |\n{'| --- ' * (len(rules) + 6)}|")
    for (arm, seed), found in rows.items():
        for row in found:
            right = (row.right(rule) for rule in (*rules, "checker"))
            shares = " | ".join(share(sum(each), len(each)) for each in right)
            tokens = f"{row.mean('generated'):.0f} | {row.mean('forwarded'):.0f}"
            print(f"| {arm} | {seed} | {row.name} | {shares} | {tokens} |")
    compared = [key for key in rows if key[0] != "B" and ("B", key[1]) in rows]
    if compared:
        print("\n| seed | B | against | points | only B / only the other | p |")
        print("| --- " * 6 + "|")
    for arm, seed in compared:
        found = rows[arm, seed]
        ours = rows["B", seed]
        for mine, theirs in zip(ours, found, strict=True):
            pairs = [(rule, rule) for rule in (*rules, "checker")]
            if rules:
                best = max(rules, key=lambda rule: sum(theirs.right(rule)))
                pairs.append(("marker", best))
            for rule, other in dict.fromkeys(pairs):
                _print_pair(seed, (mine, rule), arm, (theirs, other))
        for mine in ours if rules else ():
            _print_pair(seed, (mine, "marker"), arm, _best(found, mine.budget))


def _best(rows: Sequence[Row], budget: int | None) -> tuple[Row, str]:
    """The search and rule that are most often right under a budget, on these very problems."""
    choices = [(row, rule) for row in rows if row.budget == budget for rule in RULES]
    return max(choices, key=lambda choice: sum(choice[0].right(choice[1])))


def _print_pair(seed: int, ours: tuple[Row, str], arm: str, theirs: tuple[Row, str]) -> None:
    (mine, rule), (other, rule_of_other) = ours, theirs
    pairs = Pairs.count(mine.right(rule), other.right(rule_of_other))
    against = f"{mine.name}, {_SAID.get(rule, rule)} | {arm}, {other.name}, "
    counts = f"{pairs.points:+.1f} | {pairs.wins} / {pairs.losses} | {pairs.p:.2g}"
    print(f"| {seed} | {against}{_SAID.get(rule_of_other, rule_of_other)} | {counts} |")
