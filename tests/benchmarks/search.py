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
from pathlib import Path
from typing import Any

from stepback_server.checkpoint import Checkpoint
from stepback_training.generators import GENERATORS, Generator, Split
from stepback_training.sampling.statistics import Pairs
from tests.benchmarks.drawing import draw_costs
from tests.benchmarks.measuring import (
    DEVELOPMENT_SEED,
    FINAL_SEED,
    TASK,
    share,
    task_problems,
    whole_numbers,
)
from tests.benchmarks.rows import Row
from tests.benchmarks.search_runs import PARTS, Run
from tests.benchmarks.solving import BlindRowSolver, RowSolver, gflop, start_engine
from tests.conftest import CHECKPOINT

_CHECKER = "checker"


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


def draw(rows: Sequence[tuple[Run, Row]], out: Path) -> None:
    draw_costs(
        [
            (run.name, row.kind, row.mean("generated"), sum(row.right(_CHECKER)), len(row.asked))
            for run, row in rows
        ],
        "generated tokens a problem, mean",
        out,
    )


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
    parser.add_argument("--part", choices=PARTS, default="checker")
    parser.add_argument("--problems", type=int, default=300, help="of each kind")
    parser.add_argument(
        "--budgets", type=whole_numbers, help="token budgets; of `choice` and `summary`, N"
    )
    parser.add_argument("--numbers", type=int, choices=range(2, 7), help="Countdown of so many")
    parser.add_argument("--in-flight", type=int, default=192)
    parser.add_argument("--model", type=Path, default=CHECKPOINT)
    parser.add_argument("--out", type=Path, default=Path("runs/bench-search"))
    given = parser.parse_args()
    checkpoint = Checkpoint.open(given.model)
    given.tasks = _tasks(given.part, checkpoint, given.numbers)
    part = PARTS[given.part]
    seed = DEVELOPMENT_SEED if given.part == "temperature" else FINAL_SEED
    rows = asyncio.run(measure(part.runs(given.budgets or part.budgets), given, checkpoint, seed))
    rules = ["perplexity", "vote", "marker", "weighted_vote", _CHECKER]
    print(table(rows, rules if given.part in ("choice", "summary") else [_CHECKER], checkpoint))
    if given.part in ("checker", "marker"):
        print("", against(rows, "best-first", _CHECKER), sep="\n")
    if given.part == "checker":
        draw(rows, given.out / "tokens")
    return 0


if __name__ == "__main__":
    sys.exit(main())
