"""200 searches at once against 32 in flight and 64 in the queue, again and again.

Each is answered with 200 or 429, and some with 429; /health answers within 100 ms (99th percentile)
all the while, asked by another process at fixed times and measured from those; the memory of the
controller and of its engine core does not grow from flood to flood.
"""

import argparse
import asyncio
import multiprocessing
import statistics
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event

import httpx

from tests.probing import answer_times
from tests.progress import counted
from tests.trials.base import Controller, controller, problem, verdict

AT_ONCE = 200


def probe(url: str, stop: Event, results: "multiprocessing.Queue[list[float]]") -> None:
    """Ask for /health every 10 ms; gives the seconds that each answer took."""
    own = threading.local()

    def ask() -> None:
        if not hasattr(own, "http"):
            own.http = httpx.Client(base_url=url, timeout=300)
        assert own.http.get("/health").status_code == 200

    results.put(answer_times(ask, stop.is_set))


@dataclass
class Flooded:
    """Answers to the floods."""

    statuses: Counter[int] = field(default_factory=lambda: Counter())
    silent: int = 0
    """Answers of 429 that say nothing of when to come again."""
    controller: list[float] = field(default_factory=lambda: [])
    """Its memory after each flood, MiB."""
    core: list[float] = field(default_factory=lambda: [])
    """The engine core's."""


async def flood(target: Controller, floods: int) -> Flooded:
    found = Flooded()
    limits = httpx.Limits(max_connections=AT_ONCE)
    async with httpx.AsyncClient(base_url=target.url, timeout=120, limits=limits) as http:

        async def ask(number: int) -> httpx.Response:
            body = {"task": "countdown", "problem": problem(number).model_dump()}
            body["budget"] = {"tokens": 300}  # What is tried is the queue, not the model.
            name = ("alice", "bob")[number % 2]
            return await http.post("/solve", json=body, headers=target.headers(name))

        for number in counted(range(floods), "floods"):
            first = number * AT_ONCE
            answers = await asyncio.gather(*map(ask, range(first, first + AT_ONCE)))
            found.statuses.update(answer.status_code for answer in answers)
            refused = [answer for answer in answers if answer.status_code == 429]
            found.silent += sum(
                not answer.headers.get("Retry-After", "").isdigit() for answer in refused
            )
            found.controller.append(target.resident_mib())
            found.core.append(target.core_resident_mib())
    return found


def growth(memory: Sequence[float]) -> float:
    """Growth from the first half of the floods, without the first flood, to the second half; 0.01
    is one per cent."""
    half = len(memory) // 2
    return statistics.mean(memory[half:]) / statistics.mean(memory[1:half]) - 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--floods", type=int, default=20)
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    stop, results = context.Event(), context.Queue()
    with controller("alice", "bob", max_searches=32, max_queued=64, log_level="warning") as target:
        prober = context.Process(target=probe, args=(target.url, stop, results), daemon=True)
        prober.start()
        found = asyncio.run(flood(target, given.floods))
        stop.set()
        seconds = results.get(timeout=90)
        prober.join()
        logged, restarts = target.logged(), target.restarts()
    p99 = 1000 * statistics.quantiles(seconds, n=100)[98]
    memory = {"controller": found.controller, "core": found.core}
    grown = {name: growth(each) for name, each in memory.items()}
    said = ", ".join(
        f"{name} {each[0]:.0f} MiB after the first flood, {each[-1]:.0f} after the last, second "
        f"half {grown[name]:+.1%} over the first"
        for name, each in memory.items()
    )
    return verdict(
        "flood",
        f"{dict(found.statuses)}; /health p99 {p99:.0f} ms of {len(seconds)}; memory: {said}",
        only_200_and_429=found.statuses.keys() == {200, 429},
        each_429_says_when=found.silent == 0,
        health_under_100_ms=p99 < 100,
        controller_is_flat=grown["controller"] < 0.05,
        core_is_flat=grown["core"] < 0.05,
        no_engine_lost=restarts == 0,
        logged=logged,
    )


if __name__ == "__main__":
    sys.exit(main())
