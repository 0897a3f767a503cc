"""Panels of accuracy with their intervals, as PNG and SVG. Needs matplotlib, the extra `plot`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from stepback_training.sampling.statistics import wilson

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "font.size": 9,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",  # text stays text: smaller, and it can be searched
    "svg.hashsalt": "stepback",  # the same drawing, the same bytes
}


_INCHES_OF_A_LETTER = 0.068
# Space of a legend's label, and of the sign before it.
_INCHES_OF_A_MARK = 0.65
# Ratio of costs at which labels would overlap.
_SAME_PLACE = 1.15


@dataclass(frozen=True, slots=True)
class Point:
    """Accuracy in percent at some cost, with its 95 % interval; none for a number without one."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    label: str = ""


def measured(x: float, hits: int, total: int, label: str = "") -> Point:
    """Share of the problems, with its interval."""
    low, high = wilson(hits, total)
    return Point(x, 100 * hits / total, low, high, label)


@dataclass(frozen=True, slots=True)
class Series:
    """One line. Equal labels in several panels are one entry of the legend."""

    label: str
    colour: str
    points: Sequence[Point]
    marker: str = "o"
    dashes: str = "-"


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    """Shown at the head of a column."""
    series: Sequence[Series]
    levels: dict[str, float] = field(default_factory=dict[str, float])
    """Horizontal lines, by their label."""


def draw(
    rows: Sequence[Sequence[Panel]],
    path: Path,
    *,
    title: str,
    x_label: str,
    y_labels: Sequence[str],
    x_ticks: Sequence[float] | None = None,
) -> list[Path]:
    """Draw a grid of panels that share their axes; `x_ticks` are those of a logarithmic axis, its
    own if left out. Returns the two files, `path` with each suffix."""
    with pyplot.rc_context(_STYLE):
        figure, grid = pyplot.subplots(
            len(rows),
            len(rows[0]),
            figsize=(4.6 * len(rows[0]) + 0.4, 2.5 * len(rows) + 1.4),
            sharex=True,
            sharey=True,
            squeeze=False,
            layout="constrained",
        )
        for axes_row, panels, y_label in zip(grid, rows, y_labels, strict=True):
            axes_row[0].set_ylabel(y_label)
            for axes, panel in zip(axes_row, panels, strict=True):
                _panel(axes, panel)
        for axes, panel in zip(grid[0], rows[0], strict=True):
            axes.set_title(panel.title, loc="left")
        for axes in grid[-1]:
            axes.set_xlabel(x_label)
        _scale(grid[0][0], rows, x_ticks)
        _legend(figure, grid)
        if title:
            figure.suptitle(title, fontsize=11, wrap=True)
        files = [path.with_name(f"{path.name}{suffix}") for suffix in (".png", ".svg")]
        for file in files:
            metadata = {"Date": None} if file.suffix == ".svg" else None
            figure.savefig(file, dpi=150, metadata=metadata)
        pyplot.close(figure)
    return files


def _panel(axes: "Axes", panel: Panel) -> None:
    for each in panel.series:
        points = sorted(each.points, key=lambda point: point.x)
        xs, ys = [point.x for point in points], [point.y for point in points]
        axes.plot(
            xs, ys, each.dashes, color=each.colour, marker=each.marker, markersize=4.5,
            linewidth=1.5, label=each.label,
            markerfacecolor=each.colour if each.dashes == "-" else "white",
        )  # fmt: skip
        spans = [p for p in points if p.low is not None and p.high is not None]
        if spans:
            axes.vlines(
                [p.x for p in spans],
                [p.low or 0.0 for p in spans],
                [p.high or 0.0 for p in spans],
                color=each.colour,
                linewidth=1.1,
                alpha=0.75,
            )
        for label, (x, y) in _labels(points):
            axes.annotate(
                label, (x, y), textcoords="offset points", xytext=(4, -9), fontsize=6.5,
                color=each.colour,
            )  # fmt: skip
    for label, level in panel.levels.items():
        axes.axhline(level, color="#888888", linewidth=1, linestyle=":", label=label)
    axes.grid(alpha=0.25, which="major", linewidth=0.6)


def _labels(points: Sequence[Point]) -> list[tuple[str, tuple[float, float]]]:
    """The labels and their places; those of points in one place are one."""
    found: list[tuple[str, tuple[float, float]]] = []
    for point in points:
        if not point.label:
            continue
        last, (x, y) = found[-1] if found else ("", (0.0, 0.0))
        if x and point.x / x < _SAME_PLACE and abs(point.y - y) < 3:
            found[-1] = f"{last}, {point.label}", (x, y)
        else:
            found.append((point.label, (point.x, point.y)))
    return found


def _scale(axes: "Axes", rows: Sequence[Sequence[Panel]], ticks: Sequence[float] | None) -> None:
    """One logarithmic axis of cost and one of percent for all panels."""
    axes.set_xscale("log", base=10)
    axes.xaxis.set_major_locator(FixedLocator([*ticks]) if ticks else LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    panels = [panel for row in rows for panel in row]
    heights = [
        height
        for panel in panels
        for height in (
            *(p.y if p.low is None else p.low for each in panel.series for p in each.points),
            *panel.levels.values(),
        )
    ]
    lowest = min(heights, default=0.0)
    axes.set_ylim(max(0.0, 10 * (lowest // 10) - (5 if lowest >= 10 else 0)), 103)


def _legend(figure: Any, grid: Any) -> None:
    """One for the whole figure, under it."""
    entries: dict[str, Any] = {}
    for axes in grid.flat:
        handles, labels = axes.get_legend_handles_labels()
        for handle, label in zip(handles, labels, strict=True):
            entries.setdefault(label, handle)
    widest = _INCHES_OF_A_MARK + _INCHES_OF_A_LETTER * max(map(len, entries), default=0)
    columns = max(1, min(4, len(entries), int(figure.get_figwidth() / widest)))
    figure.legend(
        entries.values(), entries.keys(), loc="outside lower center", ncols=columns, frameon=False
    )
