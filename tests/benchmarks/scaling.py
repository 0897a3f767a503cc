"""`make bench-scaling`: what a controller costs, and what a second replica brings.

    python -m tests.benchmarks.scaling [--seconds 10] [--in-flight 1,8,32,128] [--replicas 2]

Real vLLM servers with one CPU core each, and controllers over them in processes of their own, whose
CPU time is therefore the controllers' own. Controllers and load run on the cores that are left;
with none left they share those of the servers. The same search loop also runs in this process over
one of the servers, to time what the search does between a sample's end and the next request. Shares
are of one core.
"""

import argparse
import asyncio
import itertools
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx

from stepback_client import AsyncClient
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import Engine, OnSample, Sample, SampleRequest
from stepback_server.engine.handshake import ExpectedServer
from stepback_server.engine.remote import RemoteEngine
from stepback_training.generators import Split
from tests.benchmarks.ablation import Bench
from tests.benchmarks.measuring import both_kinds, problems
from tests.benchmarks.processes import (
    PinnedServer,
    controller_of,
    cpu_seconds,
    probe,
    replicas,
    resident_mib,
    series,
)
from tests.conftest import CHECKPOINT
from tests.progress import clock

STRATEGIES = ("best_first", "best_of_n")
_OWN = "stepback_controller_seconds"
"""Wall time of one round, from the engine's delivery to the search's next request."""
_ASKED = problems(Split.TEST_SEEN, 2000)


@dataclass(frozen=True, slots=True)
class Load:
    """Work of searches while they were kept in flight."""

    searches: int
    samples: int
    tokens: int
    seconds: float

    @property
    def searches_per_second(self) -> float:
        return self.searches / self.seconds


async def load(url: str, strategy: str, in_flight: int, seconds: float) -> Load:
    """Keep so many searches in flight for so long, and wait for the last."""
    queue = itertools.cycle(enumerate(_ASKED))
    started = time.monotonic()

    async def worker(client: AsyncClient) -> list[tuple[int, int]]:
        used: list[tuple[int, int]] = []
        while time.monotonic() < started + seconds:
            seed, problem = next(queue)
            usage = (await client.solve(problem, strategy=strategy, seed=seed)).usage
            used.append((usage.engine_requests, usage.generated_tokens))
        return used

    async with AsyncClient(url, timeout=100) as client:
        parts = await asyncio.gather(*(worker(client) for _ in range(in_flight)))
    used = [each for part in parts for each in part]
    samples, tokens = (sum(column) for column in zip(*used, strict=True))
    return Load(len(used), samples, tokens, time.monotonic() - started)


# --- what one controller costs ---


def cost(
    url: str, pid: int, server: PinnedServer, pool: ProcessPoolExecutor, *load_of: str | int | float
) -> str:
    """A row of the table: a controller under one load."""
    strategy, in_flight, seconds = str(load_of[0]), int(load_of[1]), float(load_of[2])
    watched = (pid, server.process.pid, server.core_pid)
    page = httpx.get(f"{url}/metrics").text
    probing = pool.submit(probe, url, seconds)
    before = [cpu_seconds(each) for each in watched]
    done = asyncio.run(load(url, strategy, in_flight, seconds))
    used = [cpu_seconds(each) - start for each, start in zip(watched, before, strict=True)]
    shares = " | ".join(f"{100 * each / done.seconds:.0f} %" for each in used)
    after = httpx.get(f"{url}/metrics").text
    rounds, quick = (
        series(after, name) - series(page, name)
        for name in (f"{_OWN}_count", f'{_OWN}_bucket{{le="0.002"}}')
    )
    health = statistics.quantiles(probing.result(), n=100)
    return (
        f"| {strategy} | {in_flight} | {done.searches_per_second:.1f} "
        f"| {done.tokens / done.seconds:,.0f} | {1000 * used[0] / done.searches:.1f} "
        f"| {1000 * used[0] / done.samples:.2f} | {shares} | {100 * quick / rounds:.0f} % "
        f"| {resident_mib(pid):.0f} "
        f"| {1000 * health[49]:.0f} / {1000 * health[98]:.0f} |"
    )


def costs(server: PinnedServer, folder: Path, given: argparse.Namespace) -> None:
    print(
        "| strategy | in flight | searches/s | tokens/s | CPU ms a search | CPU ms a sample "
        "| controller | vLLM's front end | vLLM's core | own time within 2 ms | controller MiB "
        "| /health ms, p50 / p99 |"
    )
    print("| --- " * 12 + "|")
    with (
        controller_of([server], folder / "controller.txt") as (url, pid),
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,
    ):
        asyncio.run(load(url, "best_first", 8, 2))  # what is set up once
        for strategy in STRATEGIES:
            for in_flight in map(int, given.in_flight.split(",")):
                print(cost(url, pid, server, pool, strategy, in_flight, given.seconds), flush=True)


# --- what the search does between two requests ---


class Timed:
    """An engine that notes the CPU time of whoever is given its samples."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.seconds: list[float] = []

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        def timed(sample: Sample) -> None:
            started = time.thread_time()
            deliver(sample)
            self.seconds.append(time.thread_time() - started)

        await self._engine.sample(request, stop, timed)


async def between_requests(server: PinnedServer) -> list[float]:
    """CPU seconds from a sample's end to the search's next wishes, 32 searches in flight."""
    checkpoint = Checkpoint.open(CHECKPOINT)
    engine = RemoteEngine.connect(
        server.url,
        ExpectedServer(
            model=checkpoint.manifest.name,
            context_tokens=checkpoint.context_tokens,
            api_key=None,
            connections=256,
        ),
    )
    timed = Timed(engine)
    bench = Bench(timed, checkpoint, in_flight=32)
    await bench.measure("timing", bench.strategies()["best-first search"], 500, both_kinds(50))
    await engine.close(kill=False)
    return timed.seconds


def own_time(server: PinnedServer) -> None:
    cuts = statistics.quantiles(asyncio.run(between_requests(server)), n=100)
    print(
        "\nThe search itself, from a sample's end to its next wishes: "
        f"p50 {1000 * cuts[49]:.2f} ms, p99 {1000 * cuts[98]:.2f} ms of CPU time"
    )


# --- one replica and several ---


def compare(servers: list[PinnedServer], folder: Path, seconds: float) -> None:
    """The same load on one replica and on all, in turns."""
    if len(servers) == 1:
        return
    rates: dict[int, list[float]] = {1: [], len(servers): []}
    print("\n| replicas | searches/s | tokens/s | controller | replicas' CPU |")
    print("| --- | --- | --- | --- | --- |")
    for count in (1, len(servers)) * 2:
        used = servers[:count]
        with controller_of(used, folder / "comparing.txt") as (url, pid):
            asyncio.run(load(url, "best_first", 8, 2))
            rates[count].append(_under_load(used, url, pid, seconds))
    one, all_ = (statistics.mean(each) for each in rates.values())
    print(f"\n{len(servers)} replicas / 1: {all_ / one:.2f}")


def _under_load(used: Sequence[PinnedServer], url: str, pid: int, seconds: float) -> float:
    watched = [pid, *(each.process.pid for each in used), *(each.core_pid for each in used)]
    before = [cpu_seconds(each) for each in watched]
    done = asyncio.run(load(url, "best_first", 32 * len(used), seconds))
    shares = [
        (cpu_seconds(each) - start) / done.seconds
        for each, start in zip(watched, before, strict=True)
    ]
    print(
        f"| {len(used)} | {done.searches_per_second:.1f} | {done.tokens / done.seconds:,.0f} "
        f"| {100 * shares[0]:.0f} % | {100 * sum(shares[1:]):.0f} % |",
        flush=True,
    )
    return done.searches_per_second


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each load")
    parser.add_argument("--in-flight", default="1,8,32,128")
    parser.add_argument(
        "--replicas", type=int, default=2, help="each on a core of its own; 1 compares nothing"
    )
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        replicas(Path(name), given.replicas) as servers,
        clock("loads"),
    ):
        costs(servers[0], Path(name), given)
        own_time(servers[0])
        compare(servers, Path(name), given.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
