"""Accuracy against what it cost, as PNG and SVG."""

from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tests.benchmarks.measuring import wilson

Point = tuple[str, str, float, float, int]
"""Strategy, kind, cost, accuracy in percent, problems."""

_STYLE = {
    "best_first": ("best-first search", "#0b6e4f", "o"),
    "best_of_n": ("best-of-N", "#b5541c", "s"),
    "self_backtracking": ("self-backtracking, as published", "#3f5f9f", "^"),
    "greedy": ("greedy", "#555555", "D"),
}


def draw(points: list[Point], cost: str, path: Path) -> None:
    """One panel a kind of problems, one line a strategy, with 95 % intervals."""
    kinds = sorted({kind for _, kind, *_ in points}, reverse=True)
    figure, panels = pyplot.subplots(
        1, len(kinds), figsize=(5.2 * len(kinds), 4.2), sharey=True, squeeze=False
    )
    for panel, kind in zip(panels[0], kinds, strict=True):
        for strategy, (label, colour, marker) in _STYLE.items():
            line = sorted((x, y, n) for s, k, x, y, n in points if (s, k) == (strategy, kind))
            if not line:
                continue
            spans = [wilson(round(y * n / 100), n) for _, y, n in line]
            panel.errorbar(
                [x for x, _, _ in line],
                [y for _, y, _ in line],
                [
                    [y - low for (_, y, _), (low, _) in zip(line, spans, strict=True)],
                    [high - y for (_, y, _), (_, high) in zip(line, spans, strict=True)],
                ],
                label=label,
                color=colour,
                marker=marker,
                markersize=5,
                capsize=2,
                linewidth=1.6,
            )
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.set_xlabel(cost)
        panel.set_title(f"{kind} targets")
        panel.grid(alpha=0.3, which="both", linewidth=0.5)
        panel.set_ylim(25, 101)
    panels[0][0].set_ylabel("solved, % (strict)")
    panels[0][-1].legend(loc="lower right", frameon=False)
    figure.tight_layout()
    for suffix in (".png", ".svg"):
        figure.savefig(
            path.with_suffix(suffix), dpi=150, metadata={"Date": None} if suffix == ".svg" else None
        )
    pyplot.close(figure)
