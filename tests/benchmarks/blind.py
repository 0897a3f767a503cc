"""One checkpoint without a checker: several searches, and the marker on the model's own dead ends.

    python -m tests.benchmarks.blind --model runs/smollm2-deduction/model --out runs/blind-prosqa
        --file prosqa_valid.json --question question [--searches greedy,best-of-N] [--budgets 160]

Without --file the questions are held-out ones of the task, drawn by --options. The searches are
those of `arms`: each is asked a bare prompt, and the checker only marks what each rule has chosen.

Below the table stands what likelihood chooses right by the task's lax rule: of deduction that looks
at the answer alone, as ProsQA does. Then comes the AUC of P(marker) after the first wrong step of
the model's own branches against that after right steps. A dead end is a legal step that leaves no
way to the goal. Equal beginnings of one question count once. Rows that are done are kept in --out.
"""

import argparse
import asyncio
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from stepback_core.schemas import SolveResult
from stepback_server.checkpoint import Checkpoint
from stepback_training.generators import GENERATORS, ErrorKind
from stepback_training.generators.first_error import first_mistake
from tests.benchmarks.arm_report import report
from tests.benchmarks.arms import SEARCHES, searches_at
from tests.benchmarks.measuring import asked_or_drawn, share, whole_numbers
from tests.benchmarks.probe import auc
from tests.benchmarks.rows import Row
from tests.benchmarks.solving import BlindRowSolver, start_engine


class LookingRowSolver(BlindRowSolver):
    """Looks at the model's own steps, too."""

    def _p_marker(self, problem: BaseModel, result: SolveResult) -> dict[str, list[float]]:
        found: dict[tuple[str, ...], tuple[str, float]] = {}
        whole: dict[int, list[str]] = {}
        for node in result.tree or ():
            kept = [] if node.parent is None else whole[node.parent][: node.kept_steps]
            steps = whole[node.id] = [*kept, *node.steps]
            mistake = first_mistake(self._task.checker, problem, steps)
            for number, p in enumerate(node.p_marker, start=len(kept)):
                if p is None or (mistake and number > mistake.index):
                    continue
                kind = mistake.kind if mistake and number == mistake.index else "right"
                found[tuple(steps[: number + 1])] = (kind, p)
        by_kind: dict[str, list[float]] = defaultdict(list)
        for kind, p in found.values():
            by_kind[kind].append(p)
        return dict(by_kind)


async def ask(given: argparse.Namespace) -> list[Row]:
    """Ask every search under every budget."""
    checkpoint = Checkpoint.open(given.model)
    task = GENERATORS[given.task].with_options(given.options)
    problems = asked_or_drawn(task, given.problems, given.file, given.question)
    engine = start_engine(checkpoint, given.in_flight)
    try:
        limit = asyncio.Semaphore(given.in_flight)
        solver = LookingRowSolver(engine, checkpoint, task, limit, given.out)
        return [
            await solver.row(
                f"{name}, {budget}",
                "blind",
                options | {"budget": {"tokens": budget}, "tree": True},
                problems,
                0,
            )
            for budget in given.budgets
            for name, options in searches_at(given.temperature, given.searches).items()
        ]
    finally:
        await engine.close(kill=False)


def report_marker(row: Row) -> None:
    """Print the AUC on each kind of the model's own errors."""

    def collected(kind: str) -> np.ndarray:
        return np.asarray([p for each in row.asked for p in each.p_marker.get(kind, ())])

    right = collected("right")
    for error in ErrorKind:
        wrong = collected(error)
        if len(wrong) and len(right):
            print(
                f"{row.name}: AUC of P(marker) on own errors, {error}: {auc(wrong, right):.3f} "
                f"({len(wrong)} against {len(right)} steps)"
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="the folder for rows")
    parser.add_argument("--task", default="deduction", choices=list(GENERATORS))
    parser.add_argument("--options", type=json.loads, default={}, help="of the task, in JSON")
    parser.add_argument("--file", type=Path)
    parser.add_argument("--question", help="the column of the question")
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--searches", type=_searches, default=list(SEARCHES))
    parser.add_argument("--budgets", type=whole_numbers, default=[160])
    parser.add_argument("--temperature", type=float, help="of all samples; their own if left out")
    parser.add_argument("--in-flight", type=int, default=16)
    given = parser.parse_args()
    rows = asyncio.run(ask(given))
    report({("blind", 0): rows})
    for row in rows:
        # Rows of an older version did not judge it.
        if all("lax" in each.right for each in row.asked):
            right = row.right("lax")
            print(f"{row.name}: by likelihood and the lax rule {share(sum(right), len(right))}")
        report_marker(row)
    return 0


def _searches(text: str) -> list[str]:
    return [name for name in text.split(",") if name in SEARCHES]


if __name__ == "__main__":
    sys.exit(main())
