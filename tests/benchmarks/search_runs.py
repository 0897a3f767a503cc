"""The runs of `search`, part by part."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

TEMPERATURE = 1.3
"""Best-of-N's best with a checker, of `--part temperature`."""
_ANSWER = 25
"""Tokens of a usual answer."""
_SAMPLED = 24
"""Tokens of a sample to Countdown at `TEMPERATURE`, the task whose answers are shortest."""
_SUMMARY_BUDGET = 500
_SAMPLES = 256
"""More than any budget here pays for."""


@dataclass(frozen=True, slots=True)
class Run:
    """One row: a name, the budget that it belongs to, and what is asked for."""

    name: str
    budget: int
    options: dict[str, Any]
    is_blind: bool = False
    """True where the search sees neither the task's rules nor its checker."""

    @property
    def key(self) -> str:
        return f"{self.name}, {self.budget}"


def _checked(name: str, budget: int, strategy: str, **options: Any) -> Run:
    """A search that the checker ends, under a budget."""
    asked = {"strategy": strategy, "select": "verified", "budget": {"tokens": budget}}
    return Run(name, budget, asked | options)


def _sampled(budget: int, temperature: float, *, name: str = "best-of-N", **options: Any) -> Run:
    wide = {"breadth": _SAMPLES, "temperature": temperature}
    return _checked(name, budget, "best_of_n", **wide, **options)


def temperature_runs(budgets: Sequence[int]) -> list[Run]:
    return [
        _sampled(budget, temperature, name=f"{name} at {temperature}", greedy_first=greedy)
        for budget in budgets
        for temperature in (0.7, 1.0, 1.3, 1.6)
        for name, greedy in (("best-of-N", False), ("greedy, then best-of-N", True))
    ]


def checker_runs(budgets: Sequence[int]) -> list[Run]:
    listed = [_checked("greedy", 66, "greedy")]
    for budget in budgets:
        listed += [
            _checked("best-first", budget, "best_first"),
            _sampled(budget, TEMPERATURE),
            _sampled(budget, TEMPERATURE, name="greedy, then best-of-N", greedy_first=True),
            _sampled(budget, TEMPERATURE, name="distinct best-of-N", sampling="beam"),
        ]
        if budget >= _ANSWER * 8:
            rounds = {"breadth": _breadth(budget), "backtracks": 1}
            listed.append(_checked("self-backtracking", budget, "self_backtracking", **rounds))
    return listed


def _breadth(budget: int) -> int:
    """The N of the published table whose first round fits a budget."""
    return next((n for n in (32, 16, 8) if n * _ANSWER <= budget), 8)


def choice_runs(breadths: Sequence[int]) -> list[Run]:
    """Without a checker, by N; each search is judged by every rule."""
    listed = [_chosen("greedy", 1, "greedy")]
    for n in breadths:
        rounds = {"breadth": max(2, n // 2), "backtracks": 1}
        listed += [
            _chosen("best-of-N", n, "best_of_n", breadth=n, temperature=TEMPERATURE),
            _chosen("best-of-N at 0.7", n, "best_of_n", breadth=n, temperature=0.7),
            _chosen("best-first", n, "best_first", breadth=n),
            _chosen("self-backtracking", n, "self_backtracking", **rounds),
            _chosen(
                "self-backtracking, independent samples",
                n,
                "self_backtracking",
                sampling="independent",
                **rounds,
            ),
        ]
    return listed


def _chosen(name: str, n: int, strategy: str, **options: Any) -> Run:
    asked = {"strategy": strategy, "select": "perplexity"}
    return Run(name, n, asked | options, is_blind=True)


def summary_runs(samples: Sequence[int]) -> list[Run]:
    """Runs of README's columns: N samples or texts where no checker ends a search."""
    listed = [_chosen("greedy", 1, "greedy")]
    for n in samples:
        # Without a checker it goes on as long as it may: for no more tokens than the samples.
        unchecked = _chosen("best-first", n, "best_first", budget={"tokens": n * _SAMPLED})
        listed += [
            _chosen("best-of-N", n, "best_of_n", breadth=n, temperature=TEMPERATURE),
            unchecked,
            replace(unchecked, name="best-first, rules known", is_blind=False),
        ]
    most = _SUMMARY_BUDGET
    return [*listed, _checked("best-first", most, "best_first"), _sampled(most, TEMPERATURE)]


def marker_runs(budgets: Sequence[int]) -> list[Run]:
    listed: list[Run] = []
    for budget in budgets:
        rounds = {"breadth": _breadth(budget), "backtracks": 1}
        listed += [
            _checked("best-first", budget, "best_first"),
            _checked("best-first without the marker", budget, "best_first", ignore_marker=True),
        ]
        listed += [
            _checked(
                f"self-backtracking, {where}", budget, "self_backtracking", rollback=rule, **rounds
            )
            for where, rule in (
                ("at the marker", "marker"),
                ("at a random step", "random_step"),
                ("random samples at a random step", "random_branch"),
            )
            if budget >= _ANSWER * 8
        ]
    return listed


def size_runs(budgets: Sequence[int]) -> list[Run]:
    """Runs under one budget for every size: the rows show the cost of more numbers."""
    listed = [_checked("greedy", 66, "greedy")]
    for budget in budgets:
        listed += [
            _checked("best-first", budget, "best_first"),
            _sampled(budget, TEMPERATURE),
            _sampled(budget, TEMPERATURE, name="distinct best-of-N", sampling="beam"),
        ]
    return listed


@dataclass(frozen=True, slots=True)
class Part:
    """Runs of one part, and the budgets or numbers of samples that they have where none is said."""

    runs: Callable[[Sequence[int]], list[Run]]
    budgets: Sequence[int]


PARTS = {
    "summary": Part(summary_runs, [8]),
    "temperature": Part(temperature_runs, [250, 1000]),
    "checker": Part(checker_runs, [125, 250, 500, 1000, 2100]),
    "choice": Part(choice_runs, [4, 16]),
    "marker": Part(marker_runs, [250, 1000]),
    "sizes": Part(size_runs, [2000]),
}
