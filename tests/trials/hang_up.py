"""Callers who hang up in the middle of a chat stream, and how long the engine works on for them."""

import argparse
import asyncio
import sys
import time
from statistics import median
from typing import Any

import httpx

from tests.progress import bar
from tests.trials.base import AT_WORK, Controller, controller, problem, summed, verdict

_LONGEST = 1.0
"""Seconds until the engine must be free, at the median: a busy machine may take longer once."""
_PATIENCE = 60.0
_LEFT_AFTER = 3
"""Chunks that a caller reads first."""
_SEARCH: dict[str, Any] = {
    "stream": True,
    "strategy": "self_backtracking",
    "sampling": "independent",
    "select": "perplexity",
    "temperature": 2,
    "breadth": 64,
    "backtracks": 16,
}


async def leave(http: httpx.AsyncClient, number: int) -> tuple[int, float]:
    """Hang up on one search: the sequences that the engine had then, and its seconds to none."""
    asked = problem(number)
    prompt = f"countdown:{','.join(map(str, sorted(asked.numbers)))}={asked.target}"
    body = _SEARCH | {"messages": [{"role": "user", "content": prompt}]}
    chunks = 0
    async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            chunks += line.startswith("data:")
            if chunks == _LEFT_AFTER:
                break
        before = await at_work(http)
    left = time.monotonic()
    # One question at a time: many would take the engine's time.
    while await at_work(http) and time.monotonic() < left + _PATIENCE:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return before, time.monotonic() - left


async def at_work(http: httpx.AsyncClient) -> int:
    """Count searches, and sequences of the engine, that run or wait."""
    return round(summed((await http.get("/metrics")).text, *AT_WORK))


async def run(target: Controller, searches: int) -> list[tuple[int, float]]:
    headers = target.headers("caller")
    async with httpx.AsyncClient(base_url=target.url, headers=headers, timeout=120) as http:
        with bar("searches", searches) as progress:
            found: list[tuple[int, float]] = []
            for number in range(searches):
                found.append(await leave(http, number))
                progress.update()
            return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--searches", type=int, default=50)
    given = parser.parse_args()
    with controller("caller", log_level="warning") as target:
        found = asyncio.run(run(target, given.searches))
        logged = target.logged()
    seconds = [took for before, took in found if before]
    busiest = max(before for before, _ in found)
    said = (
        f"{len(seconds)} callers left up to {busiest} sequences: the engine was free after "
        f"{median(seconds):.2f} s (median), {max(seconds):.2f} s at most"
    )
    return verdict(
        "hang_up",
        said,
        logged=logged,
        left_work=len(seconds) > given.searches / 2,
        free_in_a_second=median(seconds) <= _LONGEST,
        always_free=max(seconds) < _PATIENCE,
    )


if __name__ == "__main__":
    sys.exit(main())
