"""Two tenants with other options each, their searches interleaved: each gets his own, or it leaks.

What tells a result's owner is in the result: strategy, selection, samples, the tree, the length of
the prompt, and the checker's verdict on each candidate. Both use the same Idempotency-Keys.
"""

import argparse
import asyncio
import sys

import httpx

from stepback_core.schemas import SolveResult
from tests.progress import bar
from tests.trials.asked import is_judged
from tests.trials.base import Controller, controller, problem, verdict


async def ask(http: httpx.AsyncClient, target: Controller, number: int) -> list[str]:
    """Run one search. List what in its answer belongs to another caller."""
    name = ("alice", "bob")[number % 2]
    asked = problem(number)
    strategy = "best_of_n" if name == "alice" else "greedy" if number % 4 == 1 else "majority"
    breadth = 1 if strategy == "greedy" else 2 + number % 5
    body = {"task": "countdown", "problem": asked.model_dump(), "strategy": strategy}
    body |= {"breadth": breadth, "tree": number % 3 == 0, "candidates": 8}
    body |= {"select": "perplexity"} if name == "alice" else {}
    # The same names for both: a key of one must never find a result of the other.
    headers = target.headers(name) | {"Idempotency-Key": f"search-{number // 2}"}
    answer = await http.post("/solve", json=body, headers=headers)
    if answer.status_code != 200:
        return [f"{number}: HTTP {answer.status_code}"]
    result = SolveResult.model_validate_json(answer.content)
    prompt = f":{','.join(map(str, asked.numbers))}={asked.target}\n"
    holds = {
        "replayed": "Idempotent-Replayed" not in answer.headers,
        "strategy": result.strategy == strategy,
        "select": (result.select == "perplexity") == (name == "alice") or strategy == "greedy",
        "samples": result.usage.engine_requests <= breadth,
        "prompt": result.usage.prompt_tokens == 1 + len(prompt),
        "tree": (result.tree is not None) == (number % 3 == 0),
        "verdict": all(is_judged(candidate, asked) for candidate in result.candidates),
        "key": not target.leaks(answer.text),
    }
    return [f"{number}: {claim}" for claim, truth in holds.items() if not truth]


async def run(target: Controller, searches: int, at_once: int) -> list[str]:
    places = asyncio.Semaphore(at_once)

    async def one(http: httpx.AsyncClient, number: int) -> list[str]:
        async with places:
            leaks = await ask(http, target, number)
        progress.update()
        return leaks

    with bar("searches", searches) as progress:
        async with httpx.AsyncClient(base_url=target.url, timeout=120) as http:
            found = await asyncio.gather(*(one(http, number) for number in range(searches)))
    return [leak for leaks in found for leak in leaks]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--searches", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=48)
    given = parser.parse_args()
    with controller("alice", "bob", log_level="warning") as target:
        leaks = asyncio.run(run(target, given.searches, given.at_once))
        logged = target.logged()
    return verdict(
        "interleaved",
        f"{given.searches} searches, {len(leaks)} leaks {leaks[:5]}",
        no_leak=not leaks,
        logged=logged,
    )


if __name__ == "__main__":
    sys.exit(main())
