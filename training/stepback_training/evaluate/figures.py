"""Figures: accuracy against generated tokens, and against N for each b."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stepback_core.schemas import Strategy
from stepback_training.evaluate import paper_numbers
from stepback_training.evaluate.drawing import Panel, Point, Series, draw, measured
from stepback_training.evaluate.evaluation import Evaluation
from stepback_training.evaluate.scoring import Rule
from stepback_training.evaluate.styles import (
    ORDER,
    SOURCE_DASHES,
    colour_of,
    line_of,
    marker_of,
    published_series,
)
from stepback_training.evaluate.summary import Accuracy, Row
from stepback_training.generators import GENERATORS, Split
from stepback_training.sampling.statistics import Share

# By which factor equal N are drawn apart.
_APART = 1.05
_SPLITS = (Split.TEST_SEEN, Split.TEST_NEW, Split.TRAIN)


@dataclass(frozen=True, slots=True)
class _Measure:
    """One way to say how many problems were solved."""

    label: str
    share: Callable[[Row], Share | None]


def _by(rule: Rule, *, lax: bool = False) -> Callable[[Row], Share | None]:
    return lambda row: _share(row.accuracy.get(rule), lax=lax)


def _share(accuracy: Accuracy | None, *, lax: bool = False) -> Share | None:
    if accuracy is None:
        return None
    return accuracy.lax if lax else accuracy.strict


_PERPLEXITY = _Measure("by perplexity, %", _by(Rule.PERPLEXITY))
_LAX = _Measure("by perplexity, lax, %", _by(Rule.PERPLEXITY, lax=True))
_VOTE = _Measure("by vote, %", _by(Rule.VOTE))
_MARKER = _Measure("by marker, %", _by(Rule.MARKER))
_LEGAL = _Measure("likeliest legal, %", _by(Rule.LEGAL))
_VERIFIED = _Measure("until verified, %", _by(Rule.VERIFIED))
_PASSED = _Measure("pass@N, %", lambda row: _share(row.pass_at_n))
_OVER_TOKENS = (_PERPLEXITY, _VOTE, _MARKER, _LEGAL, _VERIFIED)
_OVER_BREADTH = (_LAX, _PERPLEXITY, _VOTE, _MARKER, _LEGAL, _PASSED)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A row and the name of the file or model that it is of; empty where there is only one."""

    row: Row
    source: str


def draw_all(evaluations: dict[str, Evaluation], folder: Path) -> list[Path]:
    """Both figures of each task; `evaluations` are by the names of their files. Returns the files.

    Raises InvalidInput, OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tasks: dict[str, dict[str, Evaluation]] = defaultdict(dict)
    for name, evaluation in evaluations.items():
        tasks[evaluation.plan.task][name] = evaluation
    return [file for task, named in sorted(tasks.items()) for file in _of_task(task, named, folder)]


def draw_one(evaluation: Evaluation, path: Path) -> list[Path]:
    """Accuracy against generated tokens, of one evaluation; `path` is without a suffix."""
    return _against_tokens(evaluation.plan.task, {path.name: evaluation}, path)


def _of_task(task: str, named: dict[str, Evaluation], folder: Path) -> list[Path]:
    files = _against_tokens(task, named, folder / f"{task}-tokens")
    if any(row.setting.breadth for each in named.values() for row in each.rows):
        files += _against_breadth(task, named, folder / f"{task}-breadth")
    return files


def _against_tokens(task: str, named: dict[str, Evaluation], path: Path) -> list[Path]:
    drawn = _drawn(named)
    splits = _splits_of(drawn)
    measures = [each for each in _OVER_TOKENS if any(each.share(one.row) for one in drawn)]
    numbers = "" if any(one.source for one in drawn) else " (numbers at points: N)"
    return draw(
        [[_tokens_panel(drawn, task, split, measure) for split in splits] for measure in measures],
        path,
        title=_title(named, "strict checker"),
        x_label=f"generated tokens a problem, mean{numbers}",
        y_labels=[measure.label for measure in measures],
    )


def _tokens_panel(drawn: Sequence[_Drawn], task: str, split: Split, measure: _Measure) -> Panel:
    best = max(paper_numbers.curves(task, split), key=lambda c: c.percent[32], default=None)
    levels = (
        {f"paper, {best.model}, N=32, b={best.backtracks} (lax; no tokens told)": best.percent[32]}
        if best and measure is _PERPLEXITY
        else {}
    )
    series = _series(drawn, split, measure, lambda row: row.tokens.mean, by_tokens=True)
    return Panel(_heading(task, split), series, levels)


def _against_breadth(task: str, named: dict[str, Evaluation], path: Path) -> list[Path]:
    """Draw accuracy against N for each b, by perplexity as in the paper and by other rules."""
    sampled = (Strategy.BEST_OF_N, Strategy.SELF_BACKTRACKING)
    drawn = [
        one
        for one in _drawn(named)
        if one.row.setting.strategy in sampled and one.row.setting.budget_tokens is None
    ]
    if not drawn:
        return []
    splits = _splits_of(drawn)
    measures = [each for each in _OVER_BREADTH if any(each.share(one.row) for one in drawn)]
    ticks = {float(one.row.setting.breadth or 1) for one in drawn}
    ticks |= {
        float(n) for split in splits for c in paper_numbers.curves(task, split) for n in c.percent
    }
    return draw(
        [[_breadth_panel(drawn, task, split, measure) for split in splits] for measure in measures],
        path,
        title=_title(named, "against N, for each b"),
        x_label="N, samples of one expansion",
        y_labels=[measure.label for measure in measures],
        x_ticks=_apart(sorted(ticks)),
    )


def _breadth_panel(drawn: Sequence[_Drawn], task: str, split: Split, measure: _Measure) -> Panel:
    # Side by side: what is equal would hide one behind the other.
    ours = _series(
        drawn,
        split,
        measure,
        lambda row: (row.setting.breadth or 1) * _APART ** (row.setting.backtracks or 0),
        by_tokens=False,
    )
    paper = published_series(task, split) if measure is _LAX else []
    return Panel(_heading(task, split), [*paper, *ours])


def _series(
    drawn: Sequence[_Drawn],
    split: Split,
    measure: _Measure,
    x: Callable[[Row], float],
    *,
    by_tokens: bool,
) -> list[Series]:
    lines: dict[tuple[str, str], list[_Drawn]] = defaultdict(list)
    for one in drawn:
        if one.row.split is split and measure.share(one.row):
            lines[line_of(one.row), one.source].append(one)
    sources = [*dict.fromkeys(one.source for one in drawn)]
    return [
        Series(
            f"{line}, {source}" if source else line,
            colour_of(members[0].row),
            # Of one source alone: the numbers of several stand upon each other.
            [_point(one.row, measure, x, named=by_tokens and not source) for one in members],
            marker_of(members[0].row),
            SOURCE_DASHES[sources.index(source) % len(SOURCE_DASHES)],
        )
        for (line, source), members in sorted(lines.items(), key=_rank)
    ]


def _rank(line: tuple[tuple[str, str], list[_Drawn]]) -> tuple[int, tuple[str, str]]:
    """Return the sort key of a line in the legend."""
    key, members = line
    return ORDER.index(members[0].row.setting.strategy), key


def _point(row: Row, measure: _Measure, x: Callable[[Row], float], *, named: bool) -> Point:
    share = measure.share(row)
    assert share is not None
    label = f"{row.setting.breadth}" if named and row.setting.breadth else ""
    return measured(x(row), share.hits, share.of, label)


def _drawn(named: dict[str, Evaluation]) -> list[_Drawn]:
    """Return every row, labelled with its model, or with its file where one model has a setting
    twice."""
    models = {evaluation.model["id"] for evaluation in named.values()}
    keys = [
        (evaluation.model["id"], row.name, row.split)
        for evaluation in named.values()
        for row in evaluation.rows
    ]
    by_file = len(set(keys)) < len(keys)
    return [
        _Drawn(row, name if by_file else evaluation.model["id"] if len(models) > 1 else "")
        for name, evaluation in named.items()
        for row in evaluation.rows
    ]


def _splits_of(drawn: Iterable[_Drawn]) -> list[Split]:
    held = {one.row.split for one in drawn}
    return [split for split in _SPLITS if split in held]


def _heading(task: str, split: Split) -> str:
    if split is Split.TRAIN:
        return "training problems"
    if Split.TEST_NEW not in GENERATORS[task].splits:
        return "test problems"
    return f"test problems, {split.removeprefix('test_')} targets"


def _title(named: dict[str, Evaluation], what: str) -> str:
    first = next(iter(named.values()))
    models = ", ".join(dict.fromkeys(evaluation.model["id"] for evaluation in named.values()))
    counts = {evaluation.plan.problems for evaluation in named.values()}
    count = f"{min(counts):,}" if len(counts) == 1 else f"{min(counts):,} to {max(counts):,}"
    return f"{first.plan.task}, {models}: {what}, {count} problems of each kind, 95 % intervals"


def _apart(ticks: Sequence[float]) -> list[float]:
    """The ticks that leave room for their numbers on a logarithmic axis."""
    kept: list[float] = []
    for tick in ticks:
        if not kept or tick >= 1.3 * kept[-1]:
            kept.append(tick)
    return kept
