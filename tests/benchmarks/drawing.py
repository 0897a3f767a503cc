"""Accuracy against what it cost, as PNG and SVG."""

from pathlib import Path

from stepback_training.evaluate.drawing import Panel, Series, draw, measured

Point = tuple[str, str, float, int, int]
"""Search, kind, cost, problems solved, problems."""

_STYLE = {
    "best-first": ("#0b6e4f", "o"),
    "best-of-N": ("#b5541c", "s"),
    "greedy, then best-of-N": ("#d99a2b", "v"),
    "distinct best-of-N": ("#8a4f9e", "P"),
    "self-backtracking": ("#3f5f9f", "^"),
    "greedy": ("#555555", "D"),
}


def draw_costs(points: list[Point], cost: str, path: Path) -> None:
    """One panel a kind of problems, one line a search, with 95 % intervals."""
    kinds = sorted({kind for _, kind, *_ in points}, reverse=True)
    panels = [
        Panel(
            f"{kind} targets",
            [
                Series(name, colour, line, marker)
                for name, (colour, marker) in _STYLE.items()
                if (
                    line := [
                        measured(x, solved, total)
                        for s, k, x, solved, total in points
                        if (s, k) == (name, kind)
                    ]
                )
            ],
        )
        for kind in kinds
    ]
    draw([panels], path, title="", x_label=cost, y_labels=["solved, % (strict)"])
