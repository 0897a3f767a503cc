"""`make bench-search`: what each strategy solves for its tokens, on the same problems.

    python -m tests.benchmarks.search --part PART [--problems 300]

summary       every task: greedy, sampling and search, with a checker and without: README's table
temperature   best-of-N with the checker at several temperatures, on the development problems
checker       the checker ends each search: strategies under the same exact token budgets
choice        no checker: rules of choosing, at about equal tokens
marker        the marker's controls: rollback at random steps, the order without it
sizes         Countdown of 2 to 6 numbers, with the checker

Every strategy may widen: best-of-N has one sample in flight at first, and more with those that
failed, as best-first search has. Its temperature was chosen on the development problems. All parts
but the first ask the final problems, which chose nothing. Rows that are done are kept in --out, and
a run that was killed goes on. Accuracy and tokens do not depend on the machine; nothing here is
about seconds.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stepback_server.checkpoint import Checkpoint
from stepback_training.generators import GENERATORS, Generator, Split
from stepback_training.sampling.statistics import Pairs
from tests.benchmarks.drawing import draw_costs
from tests.benchmarks.measuring import DEVELOPMENT_SEED, FINAL_SEED, TASK, share, task_problems
from tests.benchmarks.rows import Row
from tests.benchmarks.solving import BlindRowSolver, RowSolver, gflop, start_engine
from tests.conftest import CHECKPOINT

TEMPERATURE = 1.3
"""Best-of-N's best with a checker, of `--part temperature`."""
_CHECKER = "checker"
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


def table(rows: Iterable[tuple[Run, Row]], rules: Sequence[str], checkpoint: Checkpoint) -> str:
    lines = [
        "| search | of | targets | by | solved % (95 %) | generated | forwarded | cached | GFLOP |",
        "| --- " * 9 + "|",
    ]
    for run, row in rows:
        for rule in rules:
            lines.append(
                f"| {run.name} | {run.budget:,} | {row.kind} | {rule} "
                f"| {share(sum(row.right(rule)), len(row.asked), 1)} | {row.mean('generated'):.0f} "
                f"| {row.mean('forwarded'):.0f} | {row.mean('cached'):.0f} "
                f"| {gflop(checkpoint, row.mean('forwarded')):.1f} |"
            )
    return "\n".join(lines)


def against(rows: Sequence[tuple[Run, Row]], name: str, rule: str) -> str:
    """Compare a search with each other one of the same budget, problem by problem, kinds
    together."""
    lines = [
        f"| of | {name} against | only {name} | only the other | points | p | tokens, ratio |",
        "| --- " * 7 + "|",
    ]
    for budget in dict.fromkeys(run.budget for run, _ in rows):
        found = {
            other: [row for run, row in rows if (run.name, run.budget) == (other, budget)]
            for other in dict.fromkeys(run.name for run, _ in rows)
        }
        ours = found.pop(name, [])
        lines += [
            f"| {budget:,} | {other} | {_paired(ours, theirs, rule)} |"
            for other, theirs in found.items()
            if ours and theirs
        ]
    return "\n".join(lines)


def _paired(ours: Sequence[Row], theirs: Sequence[Row], rule: str) -> str:
    one = [right for row in ours for right in row.right(rule)]
    other = [right for row in theirs for right in row.right(rule)]
    pairs = Pairs.count(one, other)
    tokens = sum(row.mean("generated") for row in theirs) / sum(
        row.mean("generated") for row in ours
    )
    return f"{pairs.wins} | {pairs.losses} | {pairs.points:+.1f} | {_p(pairs.p)} | {tokens:.2f}"


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 1e-4 else "< 0.0001"


async def measure(
    runs: Sequence[Run], given: argparse.Namespace, checkpoint: Checkpoint, seed: int
) -> list[tuple[Run, Row]]:
    engine = start_engine(checkpoint, given.in_flight)
    try:
        limit = asyncio.Semaphore(given.in_flight)
        tasks: dict[str, Generator[Any]] = given.tasks
        solvers = {
            (solver is BlindRowSolver, name): solver(
                engine, checkpoint, task, limit, given.out / "rows" / name
            )
            for name, task in tasks.items()
            for solver in (RowSolver, BlindRowSolver)
        }
        asked = {
            (name, kind): task_problems(task, kind, given.problems, seed)
            for name, task in tasks.items()
            for kind in task.splits
            if kind is not Split.TRAIN
        }

        async def one(run: Run, task: str, kind: Split) -> tuple[Run, Row]:
            problems = asked[task, kind]
            label = _label(task, kind)
            solver = solvers[run.is_blind, task]
            return run, await solver.row(run.key, label, run.options, problems, seed)

        return list(await asyncio.gather(*(one(run, *of) for run in runs for of in asked)))
    finally:
        await engine.close(kill=False)


def _label(task: str, kind: Split) -> str:
    """A row's problems: Countdown has seen and new targets, other tasks have one kind."""
    target = kind.removeprefix("test_")
    if task == TASK.name:
        return target
    return f"{task}, {target}" if task in _SIZES else task


def _runs(given: argparse.Namespace) -> list[Run]:
    budgets = [int(budget) for budget in given.budgets.split(",")]
    made = {
        "summary": summary_runs,
        "temperature": temperature_runs,
        "checker": checker_runs,
        "choice": choice_runs,
        "marker": marker_runs,
        "sizes": size_runs,
    }
    return made[given.part](budgets)


def draw(rows: Sequence[tuple[Run, Row]], out: Path) -> None:
    draw_costs(
        [
            (run.name, row.kind, row.mean("generated"), sum(row.right(_CHECKER)), len(row.asked))
            for run, row in rows
        ],
        "generated tokens a problem, mean",
        out,
    )


_BUDGETS = {
    "summary": "8",
    "temperature": "250,1000",
    "checker": "125,250,500,1000,2100",
    "choice": "4,16",
    "marker": "250,1000",
    "sizes": "2000",
}
_SIZES = {f"{n} numbers": TASK.with_options({"numbers": n}) for n in range(2, 7)}


def _tasks(part: str, checkpoint: Checkpoint, numbers: int | None) -> dict[str, Generator[Any]]:
    """The tasks of a part, of those that the checkpoint was trained for."""
    if numbers:
        return {name: _SIZES[name] for name in [f"{numbers} numbers"]}
    if part == "sizes":
        return dict(_SIZES)
    names = checkpoint.manifest.tasks if part == "summary" else [TASK.name]
    return {name: GENERATORS[name] for name in names}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=_BUDGETS, default="checker")
    parser.add_argument("--problems", type=int, default=300, help="of each kind")
    parser.add_argument("--budgets", help="token budgets; of `choice` and `summary`, N")
    parser.add_argument("--numbers", type=int, choices=range(2, 7), help="Countdown of so many")
    parser.add_argument("--in-flight", type=int, default=192)
    parser.add_argument("--model", type=Path, default=CHECKPOINT)
    parser.add_argument("--out", type=Path, default=Path("runs/bench-search"))
    given = parser.parse_args()
    checkpoint = Checkpoint.open(given.model)
    given.tasks = _tasks(given.part, checkpoint, given.numbers)
    given.budgets = given.budgets or _BUDGETS[given.part]
    seed = DEVELOPMENT_SEED if given.part == "temperature" else FINAL_SEED
    rows = asyncio.run(measure(_runs(given), given, checkpoint, seed))
    rules = ["perplexity", "vote", "marker", "weighted_vote", _CHECKER]
    print(table(rows, rules if given.part in ("choice", "summary") else [_CHECKER], checkpoint))
    if given.part in ("checker", "marker"):
        print("", against(rows, "best-first", _CHECKER), sep="\n")
    if given.part == "checker":
        draw(rows, given.out / "tokens")
    return 0


if __name__ == "__main__":
    sys.exit(main())
