"""`make results`: the README's table, on held-out problems through a running controller.

    python -m tests.benchmarks.accuracy [--problems 1000] [--url URL] [--out runs/results.json]

Each run solves the same problems of both test kinds. Runs without early stop return every
candidate, so one run gives the accuracy of every selection; runs with `verified` stop at the first
accepted answer and show what that saves. Percentages carry their 95 % Wilson interval.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from math import sqrt
from pathlib import Path
from random import Random
from typing import Any

from tqdm import tqdm

from stepback_client import AsyncClient, CountdownProblem, SolveResult
from stepback_core.tasks import TASKS, Split
from stepback_core.wire import Answer, Select
from tests.conftest import controller

TASK = TASKS["countdown"]
KINDS = (Split.TEST_SEEN, Split.TEST_NEW)


@dataclass(frozen=True, slots=True)
class Run:
    name: str
    options: dict[str, Any]

    @property
    def stops_early(self) -> bool:
        return self.options["select"] == Select.VERIFIED


def every(strategy: str, **options: Any) -> dict[str, Any]:
    return {"strategy": strategy, "select": "perplexity", "candidates": 1024, **options}


def first_verified(strategy: str, **options: Any) -> dict[str, Any]:
    return {"strategy": strategy, "select": "verified", **options}


RUNS = [
    Run("greedy", every("greedy")),
    Run("best-of-N, N=16", every("best_of_n", breadth=16)),
    Run("best-of-N, N=32", every("best_of_n", breadth=32)),
    Run("self-backtracking, N=16, b=1", every("self_backtracking", breadth=16, backtracks=1)),
    Run("best-of-N, N=32, until verified", first_verified("best_of_n", breadth=32)),
    Run(
        "self-backtracking, N=16, b=1, until verified",
        first_verified("self_backtracking", breadth=16, backtracks=1),
    ),
]


def problems(kind: Split, count: int) -> list[CountdownProblem]:
    return list(islice(TASK.stream(kind, Random(2026)), count))


def outcome(result: SolveResult, *, every_candidate: bool) -> dict[str, Any]:
    """What the table needs of one result."""
    answers = result.candidates if every_candidate else [result.answer] if result.answer else []
    likeliest = max(answers, key=lambda a: a.score, default=None)
    voted = max(answers, key=lambda a: (a.votes, a.score), default=None)
    return {
        "tokens": result.usage.generated_tokens,
        "requests": result.usage.engine_requests,
        "backtracks": result.usage.backtracks,
        "perplexity": _strict(likeliest),
        "lax": bool(likeliest and likeliest.lax),
        "vote": _strict(voted),
        "verified": any(_strict(answer) for answer in answers),
        "reason": likeliest.reason if likeliest else "no_answer",
    }


def _strict(answer: Answer | None) -> bool:
    return answer is not None and answer.verified is True


async def solve_all(url: str, run: Run, kind: Split, count: int, flying: int) -> list[Any]:
    limit = asyncio.Semaphore(flying)
    async with AsyncClient(url) as client:
        with tqdm(total=count, desc=f"{run.name} ({kind})", leave=False) as bar:

            async def solve(number: int, problem: CountdownProblem) -> dict[str, Any]:
                async with limit:
                    result = await client.solve(problem, seed=number, **run.options)
                bar.update()
                return outcome(result, every_candidate=not run.stops_early)

            return await asyncio.gather(
                *(solve(number, p) for number, p in enumerate(problems(kind, count)))
            )


def wilson(hits: int, total: int) -> tuple[float, float]:
    """95 % interval of a share, in percent."""
    z, share = 1.96, hits / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * sqrt(share * (1 - share) / total + z * z / (4 * total**2)) / (1 + z * z / total)
    return 100 * (middle - half), 100 * (middle + half)


def percent(outcomes: list[Any], field: str) -> str:
    hits = sum(outcome[field] for outcome in outcomes)
    low, high = wilson(hits, len(outcomes))
    return f"{100 * hits / len(outcomes):.1f} ({low:.0f} to {high:.0f})"


def mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)


def table(results: dict[str, dict[str, list[Any]]]) -> str:
    lines = [
        "| strategy | targets | tokens a problem | by perplexity | by vote | verified | lax |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for run in RUNS:
        for kind in KINDS:
            outcomes = results[run.name][kind]
            shares = [percent(outcomes, f) for f in ("perplexity", "vote", "verified", "lax")]
            if run.stops_early:
                shares = ["", "", shares[2], ""]
            tokens = mean(outcome["tokens"] for outcome in outcomes)
            name = kind.removeprefix("test_")
            lines.append(f"| {run.name} | {name} | {tokens:.0f} | " + " | ".join(shares) + " |")
    return "\n".join(lines)


async def measure(url: str, given: argparse.Namespace) -> dict[str, dict[str, list[Any]]]:
    """Every run on every kind; what the output file holds already is not run again."""
    done: dict[str, dict[str, list[Any]]] = {}
    if given.out.exists():
        done = json.loads(given.out.read_text())
    for run in RUNS:
        for kind in KINDS:
            held = done.setdefault(run.name, {})
            if len(held.get(kind, [])) != given.problems:
                held[kind] = await solve_all(url, run, kind, given.problems, given.in_flight)
                given.out.parent.mkdir(parents=True, exist_ok=True)
                given.out.write_text(json.dumps(done))
    return done


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=1000, help="of each kind")
    parser.add_argument("--url", help="a running controller; one is started if left out")
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("runs/results.json"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        start = nullcontext(given.url) if given.url else controller(log, log_level="warning")
        with start as url:
            results = asyncio.run(measure(url, given))
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
