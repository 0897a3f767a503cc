"""The figures: they are made, they have every line, and what cannot be drawn is said."""

from pathlib import Path

import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from stepback_core.schemas import Strategy
from stepback_training.evaluate.cli import plot
from stepback_training.evaluate.drawing import Panel, Point, Series, draw
from stepback_training.evaluate.plan import Setting
from tests.training.evaluate.made import written

GREEDY = Setting(strategy=Strategy.GREEDY)
SETTINGS = [
    GREEDY,
    *(Setting(strategy=Strategy.BEST_OF_N, breadth=n) for n in (8, 32)),
    *(Setting(strategy=Strategy.SELF_BACKTRACKING, breadth=n, backtracks=1) for n in (8, 32)),
    Setting(strategy=Strategy.BEST_FIRST, breadth=8, until_verified=True),
]


def test_both_figures_have_their_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, "one", *SETTINGS)
    assert plot([str(path), "--out", str(tmp_path / "figures")]) == 0
    made = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [file.name for file in made] == [
        "countdown-tokens.png",
        "countdown-tokens.svg",
        "countdown-breadth.png",
        "countdown-breadth.svg",
    ]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in made[::2])
    tokens, breadth = (file.read_text() for file in made[1::2])
    for label in ("greedy", "best-of-N, which is b=0", "self-backtracking, b=1", "best-first"):
        assert label in tokens, label
    assert "until verified" in tokens
    for label in ("paper, 1B, b=0 (lax)", "paper, 3B, b=1 (lax)", "self-backtracking, b=1"):
        assert label in breadth, label
    assert "greedy" not in breadth and "best-first" not in breadth


def test_the_same_evaluation_gives_the_same_drawing(tmp_path: Path) -> None:
    path = written(tmp_path, "one", GREEDY)
    for folder in ("a", "b"):
        assert plot([str(path), "--out", str(tmp_path / folder)]) == 0
    name = "countdown-tokens.svg"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_models_and_files_are_told_apart_in_the_legend(tmp_path: Path) -> None:
    one = written(tmp_path, "one", GREEDY, model="small")
    two = written(tmp_path, "two", GREEDY, model="large")
    three = written(tmp_path, "three", GREEDY, model="large")
    assert plot([str(one), str(two), "--out", str(tmp_path)]) == 0
    drawn = (tmp_path / "countdown-tokens.svg").read_text()
    assert "greedy, small" in drawn and "greedy, large" in drawn
    assert plot([str(two), str(three), "--out", str(tmp_path)]) == 0
    drawn = (tmp_path / "countdown-tokens.svg").read_text()
    assert "greedy, two" in drawn and "greedy, three" in drawn


@pytest.mark.parametrize("content", [None, "{", '{"rows": []}'])
def test_what_is_no_evaluation_is_refused(
    tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.json"
    if content is not None:
        path.write_text(content)
    assert plot([str(path), "--out", str(tmp_path)]) == 2
    assert "bad.json" in capsys.readouterr().err


def test_a_long_title_stays_within_a_narrow_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(pyplot, "close", drawn.append)
    panel = Panel("one", [Series("greedy", "black", [Point(100, 0.5, 0.4, 0.6)])])
    draw([[panel]], tmp_path / "figure", title="a word " * 15, x_label="x", y_labels=["y"])
    [figure] = drawn
    monkeypatch.undo()
    [title] = [text for text in figure.texts if "a word" in text.get_text()]
    try:
        extent = title.get_window_extent()
        assert extent.x0 >= 0 and extent.x1 <= figure.bbox.width
    finally:
        pyplot.close(figure)
