"""300 searches over two vLLM servers; one is killed in the middle, and started again.

No search may be lost, and each answer has to be that of its own request. The last searches come
when both servers are up again, and the one that was lost has to take its part of them.
"""

import argparse
import asyncio
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import httpx

from stepback_core.schemas import SolveResult
from tests.progress import bar
from tests.server.engine.conftest import VllmServer, two_servers
from tests.trials.asked import Asked, random_search
from tests.trials.base import Controller, controller, verdict

BOOT_SECONDS = 120.0


@dataclass
class Searched:
    """Faults of the searches, and the seconds that each took."""

    faults: list[str] = field(default_factory=lambda: [])
    seconds: list[float] = field(default_factory=lambda: [])
    one_more: asyncio.Event = field(default_factory=asyncio.Event)


class Trial:
    def __init__(self, target: Controller, lost: VllmServer, at_once: int, seed: int) -> None:
        self._target = target
        self._lost = lost
        self._random = Random(seed)
        self._at_once = at_once
        self.found = Searched()
        self.noticed = self.back = 0.0
        """Seconds from the kill until it was noticed, and from the new start until it served."""
        self.tokens_when_back = self.tokens = 0

    async def run(self, searches: int) -> None:
        """Run all but the last few with a kill after a third of them, then the last few."""
        asked = [random_search(self._random, number) for number in range(searches)]
        first, last = asked[: -self._at_once], asked[-self._at_once :]
        limits = httpx.Limits(max_connections=self._at_once + 1)
        async with httpx.AsyncClient(
            base_url=self._target.url, timeout=120, limits=limits
        ) as self._http:
            fault = asyncio.create_task(self._kill_and_start(searches // 3))
            await self._search_all(first)
            await fault
            self.tokens_when_back = self._lost.metric("vllm:generation_tokens_total")
            await self._search_all(last)
            self.tokens = self._lost.metric("vllm:generation_tokens_total")

    async def _kill_and_start(self, after: int) -> None:
        while len(self.found.seconds) < after:
            await self.found.one_more.wait()
            self.found.one_more.clear()
        self._lost.send(signal.SIGKILL)
        self.noticed = await self._until_up(1)
        self._lost.stop()
        self._lost.start()
        self.back = await self._until_up(2)

    async def _until_up(self, engines: int) -> float:
        """The seconds until so many engines are up."""
        started = time.monotonic()
        while True:
            text = (await self._http.get("/metrics", timeout=30)).text
            if f"stepback_engines_up {engines}.0" in text:
                return time.monotonic() - started
            if time.monotonic() - started > BOOT_SECONDS:
                raise TimeoutError(f"not {engines} engines up within {BOOT_SECONDS:.0f} s")
            await asyncio.sleep(0.01)

    async def _search_all(self, asked: list[Asked]) -> None:
        places = asyncio.Semaphore(self._at_once)

        async def one(each: Asked) -> None:
            async with places:
                await self._search(each)
            progress.update()

        with bar("searches", len(asked)) as progress:
            await asyncio.gather(*map(one, asked))

    async def _search(self, asked: Asked) -> None:
        started = time.monotonic()
        headers = self._target.headers("alice")
        try:
            answer = await self._http.post("/solve", json=asked.body, headers=headers)
        except httpx.HTTPError as error:
            self.found.faults.append(f"lost: {error!r}")
        else:
            self.found.faults += _faults(asked, answer)
        self.found.seconds.append(time.monotonic() - started)
        self.found.one_more.set()


def _faults(asked: Asked, answer: httpx.Response) -> list[str]:
    if answer.status_code != 200:
        return [f"HTTP {answer.status_code}: {answer.text[:300]}"]
    faults = asked.faults(SolveResult.model_validate_json(answer.content), attempts=3)
    return [f"{fault}: {asked.body} -> {answer.text[:300]}" for fault in faults]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--searches", type=int, default=300)
    parser.add_argument("--at-once", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, two_servers(Path(folder)) as servers:
        urls = ",".join(each.url for each in servers)
        with controller("alice", engine_urls=urls, log_level="warning") as target:
            trial = Trial(target, servers[0], given.at_once, given.seed)
            asyncio.run(trial.run(given.searches))
            is_idle = target.is_idle() and not any(each.running for each in servers)
            logged = target.logged()
    for fault in trial.found.faults[:10]:
        print(fault)
    return verdict(
        "replicas",
        f"{len(trial.found.seconds)} searches, {len(trial.found.faults)} faults; the lost server "
        f"was noticed in {1000 * trial.noticed:.0f} ms and served again {trial.back:.1f} s after "
        f"its start; searches took {statistics.median(trial.found.seconds):.1f} s "
        f"(median), {max(trial.found.seconds):.1f} s at most",
        no_search_lost_or_wrong=not trial.found.faults,
        all_were_asked=len(trial.found.seconds) == given.searches,
        the_lost_one_serves_again=trial.tokens - trial.tokens_when_back > given.at_once,
        idle_at_the_end=is_idle,
        logged=logged,
    )


if __name__ == "__main__":
    sys.exit(main())
