"""`make bench-search`: what each strategy solves for its tokens and its seconds.

    python -m tests.benchmarks.search [--problems 1000] [--in-flight 32] [--out runs/bench-search]

Every strategy solves the same held-out problems of both kinds through one controller on one engine,
under the same exact token budgets, with the same knowledge: the task's checker ends a search at the
first right answer (select=verified). Best-of-N samples until its budget is spent. The published
rule gets the N of its table that fits the budget. Prints the tables and draws accuracy against
tokens and against seconds, as PNG and SVG.

Seconds are wall time of the whole set with so many searches in flight, divided by the problems:
good for comparing rows of one run, on one machine.
"""

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stepback_client import AsyncClient, CountdownProblem
from stepback_core.tasks import Split
from stepback_training.sampling.statistics import wilson
from tests.benchmarks.drawing import draw_costs
from tests.benchmarks.measuring import KINDS, problems
from tests.conftest import controller

_ANSWER = 25
"""Tokens of a usual answer."""


@dataclass(frozen=True, slots=True)
class Run:
    strategy: str
    budget: int
    options: dict[str, Any]
    name: str = ""
    """In the tables; the strategy's own if left out."""


@dataclass(frozen=True, slots=True)
class Row:
    """One strategy under one budget, on one kind of problems."""

    strategy: str
    kind: str
    budget: int
    problems: int
    solved: int
    tokens: float
    """Generated tokens a problem, on average."""
    samples: float
    seconds: float
    """Wall seconds a problem."""
    most_tokens: int

    @property
    def accuracy(self) -> float:
        return 100 * self.solved / self.problems

    @property
    def solved_per_second(self) -> float:
        return self.solved / (self.problems * self.seconds)


def runs(budgets: list[int]) -> list[Run]:
    """Each budget for all; a larger one for those that spend less than it on average; best-first
    search also below and beyond, to see the ends of its curve. Best-of-N once more with the N that
    the budget pays for, all at once and without a limit: it reserves nothing then, which is how it
    is fastest."""
    most = max(budgets)
    listed = [Run("greedy", 66, {}), Run("best_first", min(budgets) // 2, {})]
    for budget in (*budgets, round(2.1 * most)):
        listed += [
            Run("best_first", budget, {}),
            Run("best_of_n", budget, {"breadth": 256}),
            Run("self_backtracking", budget, {"breadth": _breadth(budget), "backtracks": 1}),
        ]
    at_once = [
        Run("best_of_n", n * 66, {"breadth": n}, f"best_of_n, N={n} at once")
        for n in (budget // _ANSWER for budget in budgets[:2])
    ]
    return [*listed, *at_once, Run("best_first", most * 4, {})]


def _breadth(budget: int) -> int:
    """Of the published table, the N whose first round fits the budget."""
    return next((n for n in (32, 16, 8) if n * _ANSWER <= budget), 8)


async def measure(url: str, run: Run, kind: Split, given: argparse.Namespace) -> Row:
    limit = asyncio.Semaphore(given.in_flight)
    asked = problems(kind, given.problems)
    async with AsyncClient(url, timeout=600) as client:
        with tqdm(total=len(asked), desc=f"{run.strategy} {run.budget} ({kind})") as bar:
            # No seed: in the order of their numbers, samples would wait for those before them.
            async def solve(problem: CountdownProblem) -> tuple[bool, int, int]:
                async with limit:
                    result = await client.solve(
                        problem,
                        strategy=run.strategy,
                        select="verified",
                        tokens=run.budget,
                        **run.options,
                    )
                bar.update()
                usage = result.usage
                return result.status == "solved", usage.generated_tokens, usage.engine_requests

            started = time.monotonic()
            outcomes = await asyncio.gather(*(solve(problem) for problem in asked))
            elapsed = time.monotonic() - started
    count = len(outcomes)
    return Row(
        strategy=run.name or run.strategy,
        kind=kind.removeprefix("test_"),
        budget=run.budget,
        problems=count,
        solved=sum(solved for solved, _, _ in outcomes),
        tokens=sum(tokens for _, tokens, _ in outcomes) / count,
        samples=sum(samples for _, _, samples in outcomes) / count,
        seconds=elapsed / count,
        most_tokens=max(tokens for _, tokens, _ in outcomes),
    )


def table(rows: list[Row]) -> str:
    lines = [
        "| strategy | budget | targets | solved % (95 %) | tokens | samples | ms | solved/s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in sorted(rows, key=lambda row: (row.budget, row.strategy, row.kind)):
        low, high = wilson(row.solved, row.problems)
        lines.append(
            f"| {row.strategy} | {row.budget} | {row.kind} "
            f"| {row.accuracy:.1f} ({low:.0f} to {high:.0f}) | {row.tokens:.0f} "
            f"| {row.samples:.1f} | {1000 * row.seconds:.0f} | {row.solved_per_second:.1f} |"
        )
    return "\n".join(lines)


def at_equal_accuracy(rows: list[Row]) -> str:
    """Best-of-N against best-first search where both solve the same share, interpolated."""
    lines = [
        "| targets | solved % | baseline | tokens, baseline | best-first | ratio "
        "| solved/s, baseline | best-first | ratio |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for kind in sorted({row.kind for row in rows}):
        ours = [r for r in rows if r.kind == kind and r.strategy in ("greedy", "best_first")]
        ours.sort(key=lambda row: row.accuracy)
        for row in rows:
            if not row.strategy.startswith("best_of_n") or row.kind != kind:
                continue
            for low, high in itertools.pairwise(ours):
                if low.accuracy <= row.accuracy < high.accuracy:
                    share = (row.accuracy - low.accuracy) / (high.accuracy - low.accuracy)
                    tokens = low.tokens + share * (high.tokens - low.tokens)
                    seconds = low.seconds + share * (high.seconds - low.seconds)
                    solved = row.accuracy / 100 / seconds
                    lines.append(
                        f"| {kind} | {row.accuracy:.1f} | {row.strategy} {row.budget} "
                        f"| {row.tokens:.0f} | {tokens:.0f} "
                        f"| {row.tokens / tokens:.2f} | {row.solved_per_second:.1f} "
                        f"| {solved:.1f} | {solved / row.solved_per_second:.2f} |"
                    )
    return "\n".join(lines)


def at_equal_tokens(rows: list[Row], means: list[int]) -> str:
    """What each strategy solves at some tokens a problem on average, interpolated between its
    budgets; where none of them spends as much, what it solves with the most that it spent."""
    names = ("best_first", "best_of_n", "self_backtracking")
    lines = [f"| targets | tokens on average | {' | '.join(names)} |", "| --- " * 5 + "|"]
    for kind in sorted({row.kind for row in rows}):
        for mean in means:
            cells = [
                _at(mean, [r for r in rows if (r.kind, r.strategy) == (kind, n)]) for n in names
            ]
            lines.append(f"| {kind} | {mean} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _at(mean: int, rows: list[Row]) -> str:
    rows = sorted(rows, key=lambda row: row.tokens)
    for low, high in itertools.pairwise(rows):
        if low.tokens <= mean < high.tokens:
            share = (mean - low.tokens) / (high.tokens - low.tokens)
            return f"{low.accuracy + share * (high.accuracy - low.accuracy):.1f}"
    if mean < rows[0].tokens:
        return "not measured"
    return f"{rows[-1].accuracy:.1f} (with {rows[-1].tokens:.0f})"


async def measure_all(url: str, given: argparse.Namespace) -> list[Row]:
    budgets = [int(budget) for budget in given.budgets.split(",")]
    # The engine's first requests pay for what it sets up once.
    await measure(url, Run("greedy", 66, {}), KINDS[0], argparse.Namespace(**_small(given)))
    return [await measure(url, run, kind, given) for run in runs(budgets) for kind in KINDS]


def _small(given: argparse.Namespace) -> dict[str, Any]:
    return {**vars(given), "problems": 32}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=1000, help="of each kind")
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--budgets", default="250,500,1000")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-search"))
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        controller(Path(folder) / "log.txt", log_level="warning") as url,
    ):
        rows = asyncio.run(measure_all(url, given))
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "rows.json").write_text(json.dumps([asdict(row) for row in rows], indent=1))
    means = [int(budget) for budget in given.budgets.split(",")]
    print(table(rows), at_equal_tokens(rows, means), at_equal_accuracy(rows), sep="\n\n")
    draw_costs(
        [(row.strategy, row.kind, row.tokens, row.solved, row.problems) for row in rows],
        "generated tokens a problem",
        given.out / "tokens",
    )
    draw_costs(
        [(row.strategy, row.kind, row.seconds, row.solved, row.problems) for row in rows],
        f"seconds a problem, {given.in_flight} searches in flight",
        given.out / "seconds",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
