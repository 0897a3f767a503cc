"""Searches whose checker misbehaves in every way, and the latency of other searches meanwhile.

In turns the neighbours' checker is honest and hostile, with the same searches otherwise: what the
turns differ by is the misdeeds alone.
"""

import argparse
import asyncio
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

import httpx

from tests.conftest import CHECKPOINT
from tests.plugins import install_hostile
from tests.trials.asked import as_task
from tests.trials.base import Controller, controller, problem, verdict

MISDEEDS = (
    "loop",
    "exit",
    "memory",
    "socket",
    "fork",
    "__import__('os').system('touch /tmp/stepback-was-here')",
)
_TRACE = Path("/tmp/stepback-was-here")
_HONEST = 4
"""Callers whose latency counts, one search after the other each."""
_NEIGHBOURS = 4
_LARGEST_RATIO = 1.25
_Places = tuple[float, float]


@dataclass(slots=True)
class Turn:
    """Answers that the callers met in turns of one kind."""

    seconds: list[float] = field(default_factory=list[float])
    ends: Counter[str] = field(default_factory=Counter[str])
    neighbours: Counter[str] = field(default_factory=Counter[str])

    def percentiles(self) -> _Places:
        """p50 and p99 of the honest searches, in milliseconds."""
        cuts = quantiles(self.seconds, n=100)
        return cuts[49] * 1000, cuts[98] * 1000


async def take_turn(target: Controller, turn: Turn, seconds: float, *, hostile: bool) -> None:
    """Let all callers search for so many seconds."""
    numbers, misdeeds = itertools.count(), itertools.cycle(MISDEEDS)
    end = time.monotonic() + seconds
    search = {"strategy": "best_of_n", "breadth": 4, "select": "perplexity"}

    async def honest(http: httpx.AsyncClient) -> None:
        while time.monotonic() < end:
            body = as_task(problem(next(numbers))) | search
            begun = time.monotonic()
            answer = await http.post("/solve", json=body, headers=target.headers("honest"))
            turn.seconds.append(time.monotonic() - begun)
            turn.ends[str(answer.status_code)] += 1

    async def neighbour(http: httpx.AsyncClient) -> None:
        while time.monotonic() < end:
            asked = problem(next(numbers)).model_dump() | {"do": next(misdeeds) if hostile else ""}
            body = {"task": "hostile", "problem": asked} | search
            answer = await http.post("/solve", json=body, headers=target.headers("neighbour"))
            status = answer.json().get("status") if answer.status_code == 200 else None
            turn.neighbours[str(status or answer.status_code)] += 1

    async with httpx.AsyncClient(base_url=target.url, timeout=120) as http:
        callers = [honest(http) for _ in range(_HONEST)]
        await asyncio.gather(*callers, *(neighbour(http) for _ in range(_NEIGHBOURS)))


def made_model(folder: Path) -> Path:
    """The bundled checkpoint, which says that it knows the hostile task too."""
    model = shutil.copytree(CHECKPOINT, folder / "model")
    manifest = json.loads((model / "stepback.json").read_text())
    manifest["tasks"].append("hostile")
    (model / "stepback.json").write_text(json.dumps(manifest))
    return model


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="of each turn")
    parser.add_argument("--turns", type=int, default=4, help="of each kind")
    parser.add_argument("--engine", help="the address of a vLLM server of your own")
    given = parser.parse_args()
    turns = {False: Turn(), True: Turn()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["PYTHONPATH"] = str(install_hostile(folder / "plugin"))
        settings = {"model": made_model(folder), "tasks": "hostile", "log_level": "warning"}
        settings |= {"engine_urls": given.engine} if given.engine else {}
        with controller("honest", "neighbour", **settings) as target:
            # The first searches of an engine are slower, whoever asks.
            asyncio.run(take_turn(target, Turn(), given.seconds / 2, hostile=False))
            for _ in range(given.turns):
                for hostile, turn in turns.items():
                    asyncio.run(take_turn(target, turn, given.seconds, hostile=hostile))
            idle, logged = target.is_idle(), target.logged()
    (calm, calm99), (beset, beset99) = (turn.percentiles() for turn in turns.values())
    said = (
        f"honest searches: p50 {calm:.0f} ms and p99 {calm99:.0f} ms of "
        f"{len(turns[False].seconds)} beside an honest plug-in, {beset:.0f} and {beset99:.0f} of "
        f"{len(turns[True].seconds)} beside a hostile one: ratios {beset / calm:.2f} and "
        f"{beset99 / calm99:.2f}; neighbours {dict(turns[False].neighbours)} and "
        f"{dict(turns[True].neighbours)}"
    )
    return verdict(
        "hostile",
        said,
        answered=all(set(turn.ends) == {"200"} for turn in turns.values()),
        unverified=set(turns[True].neighbours) <= {"unverified", "unsolved"},
        harmless=not _TRACE.exists(),
        idle=idle,
        p99_unchanged=beset99 <= _LARGEST_RATIO * calm99,
        logged=logged,
    )


if __name__ == "__main__":
    sys.exit(main())
