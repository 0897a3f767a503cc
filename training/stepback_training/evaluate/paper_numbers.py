"""The numbers that the paper published, to draw next to ours.

Source: "Step Back to Leap Forward: Self-Backtracking for Boosting Reasoning of Language Models",
arXiv 2502.04404, Countdown with four inputs, 5,000 problems each, per cent by its lax checker. The
answer is the likeliest candidate. It says no tokens, no seconds and no intervals.
"""

from dataclasses import dataclass

from stepback_training.generators import Split

TASK = "countdown"


@dataclass(frozen=True, slots=True)
class Curve:
    """Accuracy against N, of one model with one number of rounds."""

    model: str
    backtracks: int
    split: Split
    percent: dict[int, float]
    """Per cent solved, by N."""

    @property
    def label(self) -> str:
        return f"paper, {self.model}, b={self.backtracks} (lax)"


CURVES = (
    Curve("1B", 0, Split.TEST_SEEN, {8: 66.7, 16: 70.2, 32: 70.7}),
    Curve("1B", 0, Split.TEST_NEW, {8: 67.4, 16: 71.4, 32: 72.1}),
    Curve("1B", 1, Split.TEST_SEEN, {8: 67.6, 16: 72.5, 32: 73.5}),
    Curve("1B", 1, Split.TEST_NEW, {8: 68.0, 16: 72.9, 32: 73.8}),
    Curve("3B", 0, Split.TEST_SEEN, {8: 58.8, 16: 60.2, 32: 60.2}),
    Curve("3B", 0, Split.TEST_NEW, {8: 56.9, 16: 58.1, 32: 58.1}),
    Curve("3B", 1, Split.TEST_SEEN, {8: 61.1, 16: 63.9, 32: 64.1}),
    Curve("3B", 1, Split.TEST_NEW, {8: 59.3, 16: 62.1, 32: 62.0}),
)


def curves(task: str, split: Split) -> list[Curve]:
    """The curves for a task and a split; none but for Countdown."""
    return [curve for curve in CURVES if task == TASK and curve.split is split]
