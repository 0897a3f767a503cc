"""Worth of a marker: arms with equal training tokens, measured without a checker.

    python -m tests.benchmarks.arms --recipe training/recipes/deduction-arms.toml
        --out runs/arms-deduction [--arms A,B,C,D] [--seeds 1,2,3] [--samples 40000] [--branches 8]
        [--problems 500] [--searches greedy,best-of-N] [--checker]

`arm_samples` says what the arms are; E to G are trained where --arms names them. Every arm trains
the recipe on as many tokens (`tokens`), by `stepback train`, on samples of its own. Then each is
asked the same held-out questions as plain prompts, so that no search knows the task, under the same
budgets of generated tokens. The checker only marks what was chosen. *Any* says how often some
answer is right, which a checker would find.
With --checker they are asked as problems of the task instead: a search then knows the rules, drops
illegal steps, and ends at the first right answer.

Last come paired tests (McNemar) of B against each other arm:

- the same search and the same rule, and *any*
- the same search: B by the marker, the other by its best rule
- each search of B by the marker, and the other's best search and rule under the same budget

The other's best is picked on these very problems, which favours the other.

Trainings and rows that are done are kept in --out: the same command goes on after a kill. Each
experiment needs a folder of its own; that of another recipe or of other samples is refused. A row
keeps verdicts, so take another folder after a change of a rule of choice, too.
"""

import argparse
import asyncio
import shutil
import subprocess
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from stepback_server.checkpoint import Checkpoint
from stepback_training.config import Recipe
from stepback_training.generators import GENERATORS, Split
from tests.benchmarks.arm_report import report
from tests.benchmarks.arm_samples import ARMS, LATER, OWN_ERRORS, arm_samples, write_arm
from tests.benchmarks.kept import claim
from tests.benchmarks.measuring import FINAL_SEED, whole_numbers
from tests.benchmarks.own_error_rounds import train_in_rounds
from tests.benchmarks.rows import RULES, Row
from tests.benchmarks.solving import BlindRowSolver, RowSolver, start_engine

_WIDE = {"breadth": 64, "temperature": 0.7}
_ROUNDS = {"breadth": 8, "backtracks": 1, "temperature": 0.7}
SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {"strategy": "greedy"},
    "best-of-N": {"strategy": "best_of_n", **_WIDE},
    "self-backtracking": {"strategy": "self_backtracking", **_ROUNDS},
    "rollback at random steps": {
        "strategy": "self_backtracking",
        "rollback": "random_step",
        **_ROUNDS,
    },
    "best-first": {"strategy": "best_first", "breadth": 16},
    "best-first without the marker": {
        "strategy": "best_first",
        "breadth": 16,
        "ignore_marker": True,
    },
}


def searches_at(temperature: float | None, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Some of `SEARCHES`, in their order. Samples of another temperature have it in their names."""
    found = {name: options for name, options in SEARCHES.items() if name in names}
    if temperature is None:
        return found
    hot = {"temperature": temperature}
    return {
        **{name: options for name, options in found.items() if name == "greedy"},
        **{f"{n} at {temperature:g}": o | hot for n, o in found.items() if n != "greedy"},
    }


def train_arm(given: argparse.Namespace, arm: str, seed: int) -> Path:
    """Train an arm, or go on with it; returns its checkpoint.

    Raises ValueError where the folder holds an arm of another recipe, or of other samples.
    """
    folder = given.out / f"{arm}-{seed}"
    recipe = Recipe.read(given.recipe)
    claim(folder, recipe, number=given.samples, branches=given.branches)
    source = recipe.data.tasks[0]
    task = source.task
    if task is None:
        raise ValueError(f"{given.recipe}: [data] names no task")
    if arm in OWN_ERRORS:
        train_in_rounds(
            arm,
            recipe,
            task,
            folder,
            samples=given.samples,
            branches=given.branches,
            seed=seed,
            in_flight=given.in_flight,
        )
    elif not (folder / "run/model").exists():
        samples = folder / "samples.jsonl"
        if not samples.exists():
            stream = arm_samples(arm, task, recipe.data, given.branches, seed)
            # A has one sample of each question, and so needs more questions for as many tokens.
            write_arm(stream, given.samples, samples)
        files = {"--recipe": given.recipe, "--data": samples, "--out": folder / "run"}
        flags = [str(part) for flag in files.items() for part in flag]
        subprocess.run([sys.executable, "-m", "stepback_client.cli", "train", *flags], check=True)
    # A trained arm needs no state to go on from; of SmolLM2 it is 3 GB an arm.
    for checkpoints in folder.glob("*/checkpoints"):
        shutil.rmtree(checkpoints)
    return folder / "run/model"


async def ask_arm(given: argparse.Namespace, arm: str, seed: int, model: Path) -> list[Row]:
    """Ask a trained arm every search under every budget."""
    checkpoint = Checkpoint.open(model)
    source = Recipe.read(given.recipe).data.tasks[0]
    task = GENERATORS[source.name].with_options(source.options)
    problems = list(islice(task.stream(Split.TEST_SEEN, Random(FINAL_SEED)), given.problems))
    engine = start_engine(checkpoint, given.in_flight)
    try:
        limit = asyncio.Semaphore(given.in_flight)
        kept = given.out / f"{arm}-{seed}" / ("rows-with-checker" if given.checker else "rows")
        kind = RowSolver if given.checker else BlindRowSolver
        solver = kind(engine, checkpoint, task, limit, kept)
        told = {"select": "verified"} if given.checker else {}
        return [
            await solver.row(
                f"{name}, {budget}",
                arm,
                {**options, **told, "budget": {"tokens": budget}},
                problems,
                seed,
            )
            for budget in given.budgets
            for name, options in searches_at(given.temperature, given.searches).items()
        ]
    finally:
        await engine.close(kill=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="the folder for all of it")
    parser.add_argument("--arms", type=_names, default=list(ARMS))
    parser.add_argument("--seeds", type=whole_numbers, default=[1, 2, 3])
    parser.add_argument("--samples", type=int, default=40_000, help="of each arm")
    parser.add_argument(
        "--branches", type=float, default=8, help="samples of one question, on average"
    )
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--searches", type=lambda text: text.split(","), default=list(SEARCHES))
    parser.add_argument("--budgets", type=whole_numbers, default=[40, 160, 640])
    parser.add_argument("--temperature", type=float, help="of all samples; their own if left out")
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--checker", action="store_true", help="ask with the rules and the checker")
    given = parser.parse_args()
    rows: dict[tuple[str, int], list[Row]] = {}
    for seed in given.seeds:
        for arm in given.arms:
            model = train_arm(given, arm, seed)
            rows[arm, seed] = asyncio.run(ask_arm(given, arm, seed, model))
    report(rows, () if given.checker else tuple(RULES))
    return 0


def _names(text: str) -> Sequence[str]:
    return [name for name in text.split(",") if name in (*ARMS, LATER, *OWN_ERRORS)]


if __name__ == "__main__":
    sys.exit(main())
