"""Styles of lines: name, colour and marker, the same in every figure."""

from stepback_core.schemas import Strategy
from stepback_training.evaluate import paper_numbers
from stepback_training.evaluate.drawing import Point, Series
from stepback_training.evaluate.summary import Row
from stepback_training.generators import Split

ORDER = (
    Strategy.GREEDY,
    Strategy.BEST_OF_N,
    Strategy.SELF_BACKTRACKING,
    Strategy.BEST_FIRST,
)
_NAMES = {
    Strategy.GREEDY: "greedy",
    Strategy.BEST_OF_N: "best-of-N, which is b=0",
    Strategy.BEST_FIRST: "best-first search",
}
_COLOURS = {
    Strategy.GREEDY: ("#444444",),
    Strategy.BEST_OF_N: ("#c2571a",),
    Strategy.BEST_FIRST: ("#0b6e4f",),
    Strategy.SELF_BACKTRACKING: ("#2f5aa8", "#7a3fa0", "#2a93a8", "#a83f6b"),
}
SOURCE_DASHES = ("-", "--", "-.", ":")
_PAPER_COLOUR = "#9a9a9a"
# By b.
_MARKERS = ("o", "^", "s", "v")
_PAPER_DASHES = {"1B": "--", "3B": ":"}


def line_of(row: Row) -> str:
    """Return the name of the line that a row's point lies on."""
    setting = row.setting
    name = _NAMES.get(setting.strategy, f"self-backtracking, b={setting.backtracks}")
    if setting.budget_tokens is None or setting.breadth is None:
        return name
    return f"{name}, N={setting.breadth} under a budget"


def marker_of(row: Row) -> str:
    """Return the marker of its b."""
    if row.setting.strategy is Strategy.GREEDY:
        return "D"
    return _MARKERS[(row.setting.backtracks or 0) % len(_MARKERS)]


def colour_of(row: Row) -> str:
    """Return the colour of its strategy, in the shade of its b."""
    shades = _COLOURS[row.setting.strategy]
    return shades[max(0, (row.setting.backtracks or 1) - 1) % len(shades)]


def published_series(task: str, split: Split) -> list[Series]:
    """The curves of the paper."""
    return [
        Series(
            curve.label,
            _PAPER_COLOUR,
            [Point(n, percent) for n, percent in curve.percent.items()],
            _MARKERS[curve.backtracks],
            _PAPER_DASHES[curve.model],
        )
        for curve in paper_numbers.curves(task, split)
    ]
