"""Accuracy against what it cost, as PNG and SVG."""

from pathlib import Path

from stepback_training.evaluate.drawing import Panel, Series, draw, measured

Point = tuple[str, str, float, int, int]
"""Strategy, kind, cost, problems solved, problems."""

_STYLE = {
    "best_first": ("best-first search", "#0b6e4f", "o"),
    "best_of_n": ("best-of-N", "#b5541c", "s"),
    "self_backtracking": ("self-backtracking, as published", "#3f5f9f", "^"),
    "greedy": ("greedy", "#555555", "D"),
}


def draw_costs(points: list[Point], cost: str, path: Path) -> None:
    """One panel a kind of problems, one line a strategy, with 95 % intervals."""
    kinds = sorted({kind for _, kind, *_ in points}, reverse=True)
    panels = [
        Panel(
            f"{kind} targets",
            [
                Series(label, colour, line, marker)
                for strategy, (label, colour, marker) in _STYLE.items()
                if (
                    line := [
                        measured(x, solved, total)
                        for s, k, x, solved, total in points
                        if (s, k) == (strategy, kind)
                    ]
                )
            ],
        )
        for kind in kinds
    ]
    draw([panels], path, title="", x_label=cost, y_labels=["solved, % (strict)"])
