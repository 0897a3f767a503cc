"""Memory and speed of a controller under other settings: the table of docs/operations/sizing.md.

    python -m tests.benchmarks.sizing

Each row is one controller under one load of self-backtracking searches, many in flight. Memory is
the proportional set size of the controller and of the engine core, after the load. The controller's
own time and the cache are read from `/metrics`.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import httpx

from stepback_client import AsyncClient, CountdownProblem
from stepback_training.generators import GENERATORS, Split
from tests.benchmarks.processes import series
from tests.conftest import CHECKPOINT, start_controller, wait_until_ready
from tests.process_tree import cores_below
from tests.progress import counted

ROWS: list[dict[str, int]] = [
    {},
    {"kv_cache_mib": 8},
    {"kv_cache_mib": 64},
    {"kv_cache_mib": 512},
    {"max_running": 32},
    {"max_running": 1024},
    {"max_searches": 4},
    {"max_searches": 128},
]
"""Settings that differ from the defaults."""


@dataclass
class Load:
    """Answers to one load, and the fullest that the cache was seen."""

    tokens: int
    seconds: list[float]
    wall: float
    fullest: float = 0.0


def memory_mib(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    [line] = [line for line in rollup.splitlines() if line.startswith("Pss:")]
    return int(line.split()[1]) >> 10


async def put_under_load(url: str, count: int, flying: int) -> Load:
    problems = iter(list(islice(GENERATORS["countdown"].stream(Split.TEST_SEEN, Random(0)), count)))
    load = Load(0, [], 0.0)
    started = time.monotonic()
    async with AsyncClient(url) as client, httpx.AsyncClient() as http:
        watcher = asyncio.create_task(watch_cache(http, url, load))
        await asyncio.gather(*(worker(client, problems, load) for _ in range(flying)))
        watcher.cancel()
    load.wall = time.monotonic() - started
    return load


async def watch_cache(http: httpx.AsyncClient, url: str, load: Load) -> None:
    while True:
        page = (await http.get(f"{url}/metrics")).text
        load.fullest = max(load.fullest, series(page, "vllm:kv_cache_usage_perc"))
        await asyncio.sleep(0.2)


async def worker(client: AsyncClient, queue: Iterator[CountdownProblem], load: Load) -> None:
    for problem in queue:
        started = time.monotonic()
        result = await client.solve(problem, select="perplexity", backtracks=2)
        load.seconds.append(time.monotonic() - started)
        load.tokens += result.usage.generated_tokens


def measure(settings: dict[str, int], count: int, flying: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        process, url = start_controller(log, CHECKPOINT, log_level="warning", **settings)
        try:
            wait_until_ready(url, process, log)
            # Its first requests warm the engine up and are not counted.
            asyncio.run(put_under_load(url, flying, flying))
            before = httpx.get(f"{url}/metrics").text
            load = asyncio.run(put_under_load(url, count, flying))
            after = httpx.get(f"{url}/metrics").text
            [core] = cores_below(process.pid)
            sizes = f"{memory_mib(process.pid)} + {memory_mib(core)}"
        finally:
            process.kill()
            process.wait()

    def grown(name: str, labels: str = "") -> float:
        full = name + labels
        return series(after, full) - series(before, full)

    rounds = grown("stepback_controller_seconds_count")
    within = grown("stepback_controller_seconds_bucket", '{le="0.002"}') / rounds
    quantiles = statistics.quantiles(load.seconds, n=20)
    row = (
        ", ".join(f"{name}={value}" for name, value in settings.items()) or "defaults",
        f"{load.tokens / load.wall:,.0f}",
        f"{quantiles[9]:.2f} / {quantiles[18]:.2f}",
        sizes,
        f"{load.fullest:.0%}",
        f"{grown('vllm:num_preemptions_total'):.0f}",
        f"{within:.0%}",
        f"{1000 * grown('stepback_controller_seconds_sum') / rounds:.1f}",
    )
    return f"| {' | '.join(row)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=192)
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--defaults", action="store_true", help="only the row of the defaults")
    given = parser.parse_args()
    print(
        "| settings | tokens/s | seconds p50 / p95 | MiB controller + core | cache at most "
        "| preemptions | own time within 2 ms | mean own ms |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for settings in counted(ROWS[:1] if given.defaults else ROWS, "settings"):
        print(measure(settings, given.problems, given.in_flight), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
