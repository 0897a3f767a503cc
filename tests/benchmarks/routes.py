"""`make bench-routes`: tokens/s of `/v1/chat/completions` against `/solve`, as a ratio.

Both routes are asked for the same searches: the same problems under the same seeds, which draw the
same samples and share no cached prompt. One controller answers all, the routes take turns, and
every second turn begins with the other one. A turn's ratio compares neighbours in time, so that a
machine with other work shifts both sides. The controller's own CPU time for each search is told
too: it hardly depends on that other work. Best-first search on easy problems is the hard case: a
request has some thirty tokens, so that what a route costs shows most.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from stepback_client import CountdownProblem
from stepback_core.tasks import TASKS
from tests.benchmarks.throughput import problems
from tests.conftest import start_controller, wait_until_ready
from tests.progress import counted

PATIENCE = 600
SOLVE, CHAT, BARE = "/solve", "/v1/chat/completions", "/v1/chat/completions without reasoning"
ROUTES = (SOLVE, CHAT, BARE)


def body(route: str, problem: CountdownProblem, seed: int) -> dict[str, Any]:
    """The request for one search by a route."""
    if route == SOLVE:
        return {"task": "countdown", "problem": problem.model_dump(), "seed": seed}
    line = f"{TASKS['countdown'].prompt(problem)}"
    asked: dict[str, Any] = {"messages": [{"role": "user", "content": line}], "seed": seed}
    return asked if route == CHAT else asked | {"include_reasoning": False}


def generated(route: str, answer: dict[str, Any]) -> int:
    """The tokens that an answer says were generated."""
    field = "generated_tokens" if route == SOLVE else "completion_tokens"
    tokens: int = answer["usage"][field]
    return tokens


@dataclass(frozen=True, slots=True)
class Turn:
    """One route over some problems."""

    searches: int
    tokens: int
    seconds: float
    cpu_seconds: float
    """CPU time of the controller's process."""


async def turn(
    http: httpx.AsyncClient,
    route: str,
    asked: list[CountdownProblem],
    in_flight: int,
    process: psutil.Process,
) -> Turn:
    """Ask a route for some problems."""
    queue = iter(enumerate(asked))
    began, used = time.monotonic(), _cpu_seconds(process)
    tokens = await asyncio.gather(*(_worker(http, route, queue) for _ in range(in_flight)))
    seconds = time.monotonic() - began
    return Turn(len(asked), sum(tokens), seconds, _cpu_seconds(process) - used)


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


async def _worker(
    http: httpx.AsyncClient, route: str, queue: Iterator[tuple[int, CountdownProblem]]
) -> int:
    path, tokens = route.split(" ")[0], 0
    for seed, problem in queue:
        answer = await http.post(path, json=body(route, problem, seed))
        answer.raise_for_status()
        tokens += generated(route, answer.json())
    return tokens


async def compare(
    url: str, given: argparse.Namespace, process: psutil.Process
) -> dict[str, list[Turn]]:
    """Every route's turns; the first turn warms up and is left out."""
    found: dict[str, list[Turn]] = {route: [] for route in ROUTES}
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as http:
        for number in counted(range(given.turns + 1), "routes, turns"):
            asked = problems(given.problems, number)
            for route in ROUTES if number % 2 else ROUTES[::-1]:
                found[route].append(await turn(http, route, asked, given.in_flight, process))
    return {route: turns[1:] for route, turns in found.items()}


def report(found: dict[str, list[Turn]]) -> None:
    """Print each route's rates and CPU time, and the ratios of neighbouring turns."""
    rates = {route: [one.tokens / one.seconds for one in turns] for route, turns in found.items()}
    for route, turns in found.items():
        tokens, searches = (sum(one.tokens for one in turns), sum(one.searches for one in turns))
        cpu = 1000 * sum(one.cpu_seconds for one in turns) / searches
        told = ", ".join(f"{rate:,.0f}" for rate in rates[route])
        print(f"{route}: {statistics.median(rates[route]):,.0f} tokens/s (turns: {told})")
        print(f"  {searches} searches, {tokens} tokens; {cpu:.1f} ms of CPU each in the controller")
    for route in (CHAT, BARE):
        ratios = [mine / base for mine, base in zip(rates[route], rates[SOLVE], strict=True)]
        told = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"{route} / {SOLVE}: {statistics.median(ratios):.2f} (turns: {told})")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=96)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--in-flight", type=int, default=32)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        process, url = start_controller(log := Path(name) / "log.txt", log_level="warning")
        try:
            wait_until_ready(url, process, log)
            report(asyncio.run(compare(url, given, psutil.Process(process.pid))))
        finally:
            process.terminate()
            process.wait(timeout=300)
    return 0


if __name__ == "__main__":
    sys.exit(main())
