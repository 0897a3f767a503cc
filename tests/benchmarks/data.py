"""`make bench-data`: what each idea about the training data is worth, against the paper's recipe.

    python -m tests.benchmarks.data [--tokens 6000000] [--hidden 128] [--arms paper,own-half]

Every arm trains the same small model, from the same seed, on as many samples and for as many
tokens, then is asked about the same held-out Countdown problems: first by its logits, then through
a controller. The arms `own` learn from what the arm `paper` does wrong on
training problems. A finished arm is kept in OUT/results.jsonl and is not run again; a killed one
goes on. The tables carry 95 % Wilson intervals.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from stepback_client import AsyncClient, SolveResult, Status
from stepback_core.manifest import Manifest
from stepback_training.collect_errors.collect import collect
from stepback_training.collect_errors.collection import CollectionPlan, open_collection
from stepback_training.collect_errors.first_error import PathJudge, Tally
from stepback_training.config import Recipe
from stepback_training.data.samples import recipe_of, write_samples
from stepback_training.sampling.searchers import at_controller
from stepback_training.train.sft import train
from tests.benchmarks.data_tables import tables
from tests.benchmarks.measuring import KINDS, TASK, problems
from tests.benchmarks.probe import Probe
from tests.conftest import controller

BASE = "paper"
ARMS: dict[str, dict[str, Any]] = {
    BASE: {},
    "optimal": {"backtrack_share": 0.0},
    "backtrack-30": {"backtrack_share": 0.3},
    "canonical": {"paths": "canonical"},
    "plainest": {"paths": "plainest"},
    "plainest-optimal": {"paths": "plainest", "backtrack_share": 0.0},
    "first-steps": {"paths": "plainest", "backtrack_share": 0.0, "first_steps": 0.7},
    "exploration": {"errors": {"exploration": 8, "computational": 1, "rule_violation": 1}},
    "two-wrong": {"wrong_steps": {1: 0.8, 2: 0.2}},
    "false-claims": {"false_claims": 0.3},
    "own-half": {"own_errors": {"share": 0.5}},
    "own-all": {"own_errors": {"share": 1.0}},
    "together": {"paths": "plainest", "backtrack_share": 0.3, "own_errors": {"share": 0.5}},
}
"""Changes of each arm to the paper's data recipe."""
_TOKENS_OF_A_SAMPLE = 42
"""About as many as the samples of the arms have, so that each is trained on about once."""
_TOKENS_OF_A_SHORT_SAMPLE = 30
"""The same of arms with `first_steps`."""
SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {"strategy": "greedy", "select": "perplexity"},
    "self-backtracking": {
        "strategy": "self_backtracking",
        "breadth": 16,
        "backtracks": 1,
        "select": "perplexity",
        "tree": True,
    },
    "best-first": {"strategy": "best_first", "tokens": 250, "select": "verified"},
}

Found = dict[str, Any]


def recipe_of_arm(name: str, given: argparse.Namespace) -> Recipe:
    """Return the recipe of all arms with this arm's changes."""
    changes = dict(ARMS[name])
    if "own_errors" in changes:
        changes["own_errors"] = changes["own_errors"] | {"file": str(errors_file(given))}
    length = _TOKENS_OF_A_SHORT_SAMPLE if "first_steps" in changes else _TOKENS_OF_A_SAMPLE
    return Recipe.model_validate(
        {
            "name": name,
            "seed": given.seed,
            "data": {"samples": given.samples or given.tokens // length, **changes},
            "scratch": {
                "hidden_size": given.hidden,
                "intermediate_size": given.hidden * 11 // 4,
                "layers": given.layers,
                "heads": given.hidden // 64,
            },
            "train": {
                "tokens": given.tokens,
                "optimizer": "muon",
                "learning_rate": 3e-3,
                "adamw_learning_rate": 2e-3,
                "schedule": "linear",
                "batch_tokens": given.batch_tokens,
                "checkpoint_every": 200,
                "compile": True,
            },
        }
    )


def identity(name: str, given: argparse.Namespace) -> str:
    """Names a trained model: another recipe, or other training tokens, another name. What a recipe
    leaves at its default has no part in it, so options to come change no name."""
    recipe = recipe_of_arm(name, given).model_dump_json(exclude_defaults=True)
    digest = sha256(recipe.encode()).hexdigest()
    return f"{name}-{digest[:12]}"


def errors_file(given: argparse.Namespace) -> Path:
    folder: Path = given.out
    return folder / f"errors-{given.own_problems}-of-{identity(BASE, given)}.jsonl"


def trained(name: str, given: argparse.Namespace) -> Path:
    """The arm's finished checkpoint; trained now, unless it was before."""
    recipe, folder = recipe_of_arm(name, given), given.out / identity(name, given)
    if (folder / "model").exists():
        return folder / "model"
    if recipe.data.own_errors is not None:
        collect_errors(given)
    data = folder / "samples.jsonl"
    if not data.exists() or recipe_of(data) != recipe.data:
        write_samples(recipe.data, data)
    return train(recipe, data, folder)


def collect_errors(given: argparse.Namespace) -> None:
    """Collect the errors of the paper's arm on training problems, as `stepback errors` does."""
    out = errors_file(given)
    if out.exists():
        return
    folder, growing = trained(BASE, given), out.with_name("growing-" + out.name)
    plan = CollectionPlan(task=TASK.name, samples=8, temperature=0.7, seed=given.seed, model=BASE)

    async def ask(url: str) -> None:
        async with AsyncClient(url) as client:
            digest = (await client.models()).data[0].digest
            with (
                open_collection(growing, plan, digest) as collection,
                tqdm(total=given.own_problems, desc="own errors") as bar,
            ):
                await collect(
                    nullcontext(at_controller(client)),
                    plan,
                    collection,
                    given.own_problems,
                    in_flight=16,
                    stop=asyncio.Event(),
                    advance=bar.update,
                )

    with controller(given.out / "controller.log", folder, log_level="warning") as url:
        asyncio.run(ask(url))
    growing.replace(out)


def measure(name: str, given: argparse.Namespace) -> Found:
    """Measure one arm."""
    folder = trained(name, given)
    asked = {kind: problems(kind, given.problems) for kind in KINDS}
    probe = Probe(folder)
    found: Found = {
        "training": Manifest.read(folder).training,
        "solving": {kind: probe.solving(each) for kind, each in asked.items()},
        "marker": probe.marker([problem for each in asked.values() for problem in each]),
        "searches": {},
    }
    with controller(given.out / "controller.log", folder, log_level="warning") as url:
        for search, options in SEARCHES.items():
            for kind, each in asked.items():
                results = asyncio.run(solve_all(url, each, options, f"{name}: {search} ({kind})"))
                found["searches"].setdefault(search, {})[kind] = {
                    "solved": sum(r.status is Status.SOLVED for r in results),
                    "problems": len(results),
                    "tokens": sum(r.usage.generated_tokens for r in results) / len(results),
                }
                if options.get("tree"):
                    found.setdefault("paths", {})[kind] = sampled_paths(each, results)
    return found


async def solve_all(
    url: str, asked: Sequence[Any], options: dict[str, Any], title: str
) -> list[SolveResult]:
    limit = asyncio.Semaphore(16)
    async with AsyncClient(url) as client:
        with tqdm(total=len(asked), desc=title, leave=False) as bar:

            async def solve(number: int, problem: Any) -> SolveResult:
                async with limit:
                    result = await client.solve(problem, seed=number, **options)
                bar.update()
                return result

            return await asyncio.gather(*(solve(*each) for each in enumerate(asked)))


def sampled_paths(asked: Sequence[Any], results: Sequence[SolveResult]) -> Found:
    """Tally the single paths that the search began with, before any rollback."""
    judge, tally = PathJudge(TASK), Tally()
    for problem, result in zip(asked, results, strict=True):
        for node in result.tree or []:
            if node.parent == 0:
                judge.count(problem, node, tally)
    return tally.model_dump(mode="json")


def key_of(name: str, given: argparse.Namespace) -> str:
    """Names a measurement: another model, or other problems, another name."""
    asked = json.dumps([given.problems, SEARCHES], sort_keys=True)
    return f"{identity(name, given)}-{sha256(asked.encode()).hexdigest()[:12]}"


def results_of(path: Path) -> dict[str, Found]:
    lines = path.read_text().splitlines() if path.exists() else []
    return {found["key"]: found for found in map(json.loads, lines)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arms", default=",".join(ARMS), help="some of the arms")
    parser.add_argument("--tokens", type=int, default=28_600_000, help="of each arm's training")
    parser.add_argument("--samples", type=int, help=f"tokens / {_TOKENS_OF_A_SAMPLE} if left out")
    parser.add_argument("--hidden", type=int, default=256, help="a multiple of 64")
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--batch-tokens", type=int, default=16384)
    parser.add_argument("--seed", type=int, default=0, help="of weights and order; the data stays")
    parser.add_argument("--problems", type=int, default=300, help="of each test kind")
    parser.add_argument("--own-problems", type=int, default=4000, help="that errors come from")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--out", type=Path, default=Path("runs/data"))
    given = parser.parse_args()
    names = given.arms.split(",")
    if unknown := [name for name in names if name not in ARMS]:
        parser.error(f"--arms: no {', '.join(unknown)}; there are {', '.join(ARMS)}")
    torch.set_num_threads(given.threads)
    # Ended from outside, it ends its controller too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "results.jsonl"
    for name in names:
        if (key := key_of(name, given)) not in results_of(path):
            found = {"key": key, "arm": name} | measure(name, given)
            with path.open("a") as file:
                file.write(json.dumps(found) + "\n")
    held = results_of(path)
    print(tables({name: held[key_of(name, given)] for name in names}, list(SEARCHES)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
