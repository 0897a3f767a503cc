"""`make results`: the README's table, on held-out problems through a controller of its own.

    python -m tests.benchmarks.accuracy [--problems 1000] [--out runs/results.json]

Each run solves the same problems of both test kinds. Runs without early stop return every
candidate, so one run gives the accuracy of every selection; runs until `verified` stop at the first
accepted answer and show what that saves. Best-of-N is the published rule with b=0; the matched run
has the N that spends as many tokens as self-backtracking did, kind by kind. Percentages carry their
95 % Wilson interval.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stepback_client import AsyncClient, CountdownProblem, SolveResult
from stepback_core.tasks import Split
from stepback_core.wire import Answer, Select
from tests.benchmarks.measuring import KINDS, problems, wilson
from tests.conftest import CHECKPOINT, controller

N = 16
BEST = f"best-of-N, N={N}"
SEARCH = f"self-backtracking, N={N}, b=1"
MATCHED = "best-of-N at its tokens"
OURS = f"best-first search, {N} answers"
UNTIL_VERIFIED = ", until verified"

Outcome = dict[str, Any]
Results = dict[str, dict[str, list[Outcome]]]


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


def runs_of(kind: Split, results: Results) -> Iterable[Run]:
    """The runs in order; the matched ones depend on what was measured before them."""
    yield Run("greedy", every("greedy"))
    yield Run(BEST, every("best_of_n", breadth=N))
    yield Run(SEARCH, every("self_backtracking", breadth=N, backtracks=1))
    of_a_sample = tokens(results[BEST][kind]) / N
    breadth = round(tokens(results[SEARCH][kind]) / of_a_sample)
    yield Run(MATCHED, every("best_of_n", breadth=breadth))
    searching = first_verified("self_backtracking", breadth=N, backtracks=1)
    yield Run(SEARCH + UNTIL_VERIFIED, searching)
    yield Run(MATCHED + UNTIL_VERIFIED, first_verified("best_of_n", breadth=breadth))
    yield Run(OURS, every("best_first", breadth=N))
    yield Run("best-first search" + UNTIL_VERIFIED, first_verified("best_first"))


def outcome(result: SolveResult, run: Run) -> Outcome:
    """What the table needs of one result."""
    answers = [result.answer] if result.answer else []
    answers = answers if run.stops_early else result.candidates
    likeliest = max(answers, key=lambda a: a.score, default=None)
    voted = max(answers, key=lambda a: (a.votes, a.score), default=None)
    return {
        "tokens": result.usage.generated_tokens,
        "samples": result.usage.engine_requests,
        "backtracks": result.usage.backtracks,
        "perplexity": _strict(likeliest),
        "lax": bool(likeliest and likeliest.lax),
        "vote": _strict(voted),
        "verified": any(_strict(answer) for answer in answers),
        "reason": likeliest.reason if likeliest else "no_answer",
    }


def _strict(answer: Answer | None) -> bool:
    return answer is not None and answer.verified is True


async def solve_all(url: str, run: Run, kind: Split, count: int, flying: int) -> list[Outcome]:
    limit = asyncio.Semaphore(flying)
    async with AsyncClient(url) as client:
        with tqdm(total=count, desc=f"{run.name} ({kind})", leave=False) as bar:

            async def solve(number: int, problem: CountdownProblem) -> Outcome:
                async with limit:
                    result = await client.solve(problem, seed=number, **run.options)
                bar.update()
                return outcome(result, run)

            return await asyncio.gather(
                *(solve(number, p) for number, p in enumerate(problems(kind, count)))
            )


def identity(run: Run, count: int) -> str:
    """Names a measurement: another checkpoint, other options or other problems, another name."""
    digest = sha256(json.dumps([run.options, count], sort_keys=True).encode())
    for path in sorted(CHECKPOINT.iterdir()):
        if path.suffix in {".json", ".safetensors"}:
            digest.update(path.read_bytes())
    return digest.hexdigest()


async def measure(url: str, given: argparse.Namespace) -> Results:
    """Every run on every kind; what the output file holds of this checkpoint is not run again."""
    held: dict[str, list[Outcome]] = {}
    if given.out.exists():
        held = json.loads(given.out.read_text())
    results: Results = {}
    for kind in KINDS:
        for run in runs_of(kind, results):
            key = f"{run.name} ({kind}) {identity(run, given.problems)}"
            if key not in held:
                held[key] = await solve_all(url, run, kind, given.problems, given.in_flight)
                save(given.out, held)
            results.setdefault(run.name, {})[kind] = held[key]
    return results


def save(path: Path, held: dict[str, list[Outcome]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(held))
    partial.replace(path)


def percent(outcomes: list[Outcome], field: str) -> str:
    hits = sum(outcome[field] for outcome in outcomes)
    low, high = wilson(hits, len(outcomes))
    return f"{100 * hits / len(outcomes):.1f} ({low:.0f} to {high:.0f})"


def mean(outcomes: list[Outcome], field: str) -> float:
    return sum(outcome[field] for outcome in outcomes) / len(outcomes)


def tokens(outcomes: list[Outcome]) -> float:
    return mean(outcomes, "tokens")


def table(results: Results) -> str:
    lines = [
        "| strategy | targets | samples | tokens | by perplexity | by vote | verified | lax |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, kinds in results.items():
        for kind, outcomes in kinds.items():
            shares = [percent(outcomes, f) for f in ("perplexity", "vote", "verified", "lax")]
            if name.endswith(UNTIL_VERIFIED):
                shares = ["", "", shares[2], ""]
            cost = f"{mean(outcomes, 'samples'):.1f} | {tokens(outcomes):.0f}"
            lines.append(
                f"| {name} | {kind.removeprefix('test_')} | {cost} | " + " | ".join(shares) + " |"
            )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=1000, help="of each kind")
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("runs/results.json"))
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        controller(Path(folder) / "log.txt", log_level="warning") as url,
    ):
        results = asyncio.run(measure(url, given))
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
