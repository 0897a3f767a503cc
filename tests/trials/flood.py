"""200 searches at once against 32 in flight and 64 in the queue, again and again.

Each is answered with 200 or 429; /health answers within 100 ms (99th percentile) all the while,
asked by another process; the controller's memory does not grow from flood to flood.
"""

import argparse
import asyncio
import multiprocessing
import statistics
import sys
import time
from collections import Counter
from multiprocessing.synchronize import Event

import httpx

from tests.trials.base import Controller, controller, problem, verdict

AT_ONCE = 200


def probe(url: str, stop: Event, results: "multiprocessing.Queue[list[float]]") -> None:
    """Ask for /health every 10 ms; gives the seconds that each answer took."""
    seconds: list[float] = []
    with httpx.Client(base_url=url) as http:
        while not stop.is_set():
            started = time.monotonic()
            assert http.get("/health").status_code == 200
            seconds.append(time.monotonic() - started)
            time.sleep(0.01)
    results.put(seconds)


async def flood(target: Controller, floods: int) -> tuple[Counter[int], list[float], int]:
    """The statuses, the memory after each flood in MiB, and answers of 429 that say nothing of
    when to come again."""
    statuses: Counter[int] = Counter()
    memory: list[float] = []
    silent = 0
    limits = httpx.Limits(max_connections=AT_ONCE)
    async with httpx.AsyncClient(base_url=target.url, timeout=120, limits=limits) as http:

        async def ask(number: int) -> httpx.Response:
            body = {"task": "countdown", "problem": problem(number).model_dump()}
            body["budget"] = {"tokens": 300}  # What is tried is the queue, not the model.
            name = ("alice", "bob")[number % 2]
            return await http.post("/solve", json=body, headers=target.headers(name))

        for number in range(floods):
            first = number * AT_ONCE
            answers = await asyncio.gather(*map(ask, range(first, first + AT_ONCE)))
            statuses.update(answer.status_code for answer in answers)
            refused = [answer for answer in answers if answer.status_code == 429]
            silent += sum(not answer.headers.get("Retry-After", "").isdigit() for answer in refused)
            memory.append(target.resident_mib())
    return statuses, memory, silent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--floods", type=int, default=20)
    given = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    stop, results = context.Event(), context.Queue()
    with controller("alice", "bob", max_searches=32, max_queued=64, log_level="warning") as target:
        prober = context.Process(target=probe, args=(target.url, stop, results))
        prober.start()
        statuses, memory, silent = asyncio.run(flood(target, given.floods))
        stop.set()
        seconds = results.get(timeout=30)
        prober.join()
        logged, restarts = target.logged(), target.restarts()
    p99 = 1000 * statistics.quantiles(seconds, n=100)[98]
    half = len(memory) // 2
    grown = statistics.mean(memory[half:]) - statistics.mean(memory[1:half])
    return verdict(
        "flood",
        f"{dict(statuses)}; /health p99 {p99:.0f} ms of {len(seconds)}; memory "
        f"{memory[0]:.0f} MiB after the first flood, {memory[-1]:.0f} after the last, second half "
        f"{grown:+.1f} MiB over the first",
        only_200_and_429=set(statuses) <= {200, 429},
        each_429_says_when=silent == 0,
        health_under_100_ms=p99 < 100,
        memory_is_flat=grown < 8,
        no_engine_lost=restarts == 0,
        logged=logged,
    )


if __name__ == "__main__":
    sys.exit(main())
