"""Mixed load against one controller for a quarter of an hour: nothing lost, nothing left over.

Searches of every strategy, plain and streamed, read quickly and slowly; callers who hang up at any
moment; deadlines, bad requests, repeated ones, keys at their limit. Each request has to end in what
it asked for, and the memory of controller and engine core has to stay where it was.
"""

import argparse
import asyncio
import statistics
import sys
import time
from dataclasses import dataclass, field
from random import Random

import httpx

from tests.progress import clock
from tests.trials.base import Controller, controller, verdict
from tests.trials.load import HANG_SECONDS, LIMITED, LIMITS, OWNERS, Load, Tally


@dataclass
class Memory:
    """Resident MiB of controller and core, with the minute of each sample."""

    samples: list[tuple[float, float, float]] = field(default_factory=lambda: [])

    async def watch(self, target: Controller) -> None:
        started = time.monotonic()
        while True:
            minute = (time.monotonic() - started) / 60
            self.samples.append((minute, target.resident_mib(), target.core_resident_mib()))
            await asyncio.sleep(3)

    def grown(self, warm_up: float, column: int) -> float:
        """The median of the last tenth over that of the first one after the warm-up, less 1."""
        series = [sample[column] for sample in self.samples if sample[0] >= warm_up]
        tenth = max(1, len(series) // 10)
        return statistics.median(series[-tenth:]) / statistics.median(series[:tenth]) - 1

    def show(self) -> None:
        print("minute  controller MiB  core MiB")
        step = (len(self.samples) - 1) / 12
        for at in range(13):
            minute, own, core = self.samples[round(at * step)]
            print(f"{minute:6.1f}  {own:14.0f}  {core:8.0f}")


async def soak(target: Controller, seconds: float, callers: int, seed: int) -> tuple[Tally, Memory]:
    memory = Memory()
    limits = httpx.Limits(max_connections=4 * callers, max_keepalive_connections=callers)
    async with httpx.AsyncClient(base_url=target.url, timeout=HANG_SECONDS, limits=limits) as http:
        load = Load(target, http, Random(seed))
        watching = asyncio.create_task(memory.watch(target))
        ends = time.monotonic() + seconds
        with clock(f"soak, of {seconds:.0f} s", seconds):
            await asyncio.gather(*(load.work(ends) for _ in range(callers)))
        watching.cancel()
    return load.tally, memory


def show(tally: Tally) -> None:
    print(f"{'requests':>8}  {'kind':<24}end")
    for (kind, end), number in sorted(tally.ended.items()):
        print(f"{number:8}  {kind:<24}{end}")
    for fault in tally.faults[:20]:
        print(fault)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    warm_up = min(2.0, given.minutes / 3)
    names = (*OWNERS, LIMITED)
    with controller(*names, limits=LIMITS, log_level="warning") as target:
        tally, memory = asyncio.run(soak(target, 60 * given.minutes, given.callers, given.seed))
        is_idle = target.is_idle()
        searched = target.metric("stepback_searches_total")
        abandoned = target.metric("stepback_abandoned_total")
        refused = target.metric("stepback_refused_total")
        logged, restarts = target.logged(), target.restarts()
    show(tally)
    memory.show()
    controller_grown, core_grown = memory.grown(warm_up, 1), memory.grown(warm_up, 2)
    late = searched - tally.searched
    return verdict(
        "soak",
        f"{tally.ended.total()} requests in {given.minutes:g} minutes, {len(tally.faults)} faults, "
        f"median {statistics.median(tally.seconds):.2f} s, longest {max(tally.seconds):.1f} s; "
        f"{tally.hung_up} hang-ups: {abandoned:.0f} searches ended, {late:.0f} too late; memory "
        f"after {warm_up:.1f} minutes to the end: controller {controller_grown:+.1%}, core "
        f"{core_grown:+.1%}",
        nothing_lost_hung_or_wrong=not tally.faults,
        every_search_is_counted=late >= 0 and late + abandoned <= tally.hung_up,
        every_refusal_is_counted=refused == tally.refused,
        controller_is_flat=controller_grown < 0.05,
        core_is_flat=core_grown < 0.05,
        idle_at_the_end=is_idle,
        no_engine_lost=restarts == 0,
        logged=logged,
    )


if __name__ == "__main__":
    sys.exit(main())
