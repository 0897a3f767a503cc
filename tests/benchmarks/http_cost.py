"""CPU time of a best-first search over HTTP, by process, part and function.

    pip install --target .cache/py-spy py-spy==0.4.3
    python -m tests.benchmarks.http_cost [--seconds 60] [--in-flight 32] [--engine URL]

A controller with vLLM inside, as `make bench` has it, or over the server of --engine. CPU seconds
are the operating system's, so they say less of a busy machine than a clock would. py-spy samples
the controller's main thread where it runs. A sample belongs to the innermost of its frames that
is in a part below; *functions* are Stepback's own, with all that they call.
"""

import argparse
import asyncio
import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from stepback_client import AsyncClient
from stepback_training.generators import Split
from tests.benchmarks.measuring import TASK
from tests.benchmarks.processes import cpu_seconds
from tests.conftest import start_controller, wait_until_ready
from tests.process_tree import cores_below
from tests.progress import clock

PARTS = {
    "the search": ("stepback_server/search/",),
    "the engine seam": ("stepback_server/engine/", "stepback_server/engine_provider"),
    "tasks and tokens": ("stepback_core/",),
    "routes, queue, answer, metrics": ("stepback_server/",),
    "vLLM's front end": ("vllm/", "msgspec/", "zmq/"),
    "HTTP": ("uvicorn/", "starlette/", "fastapi/", "h11/", "httptools/", "anyio/", "aiohttp/"),
    "pydantic": ("pydantic/", "pydantic_core/"),
    "the event loop": ("asyncio/", "uvloop/", "selectors.py"),
}
"""A part by paths of its code; what is built in counts for whatever calls it."""
_MAIN = "stepback_client/cli.py"
_WAIT = "selectors.py"
_WARM = 64
_FUNCTIONS = 15


def part_of(frames: Iterable[str]) -> str:
    """The part of the innermost frame that has one; frames are from the outside in."""
    for frame in reversed(list(frames)):
        for part, paths in PARTS.items():
            if any(path in frame for path in paths):
                return part
    return "the rest"


def by_part(stacks: dict[tuple[str, ...], int]) -> Counter[str]:
    found: Counter[str] = Counter()
    for frames, count in stacks.items():
        found[part_of(frames)] += count
    return found


def by_function(stacks: dict[tuple[str, ...], int]) -> Counter[str]:
    """Samples that have a function of Stepback anywhere in their stack."""
    found: Counter[str] = Counter()
    for frames, count in stacks.items():
        for name in {frame.rsplit(":", 1)[0] for frame in frames if "stepback_" in frame}:
            found[name] += count
    return found


def read_stacks(raw: str) -> dict[tuple[str, ...], int]:
    """py-spy's raw lines of the main thread: frames from the outside in, and how often seen.

    Without waits: a thread that is due but gets no core looks like one at work to py-spy.
    """
    split = (line.rpartition(" ") for line in raw.splitlines())
    stacks = {tuple(frames.split(";")): int(count) for frames, _, count in split}
    return {
        frames: count
        for frames, count in stacks.items()
        if any(_MAIN in frame for frame in frames) and _WAIT not in frames[-1]
    }


async def load(url: str, in_flight: int, enough: Iterator[bool]) -> int:
    """Searches done while `enough` says no."""
    stream = TASK.stream(Split.TEST_SEEN, Random(7))
    done = 0
    async with AsyncClient(url) as client:

        async def worker() -> None:
            nonlocal done
            while not next(enough):
                await client.solve(next(stream), strategy="best_first")
                done += 1

        await asyncio.gather(*(worker() for _ in range(in_flight)))
    return done


def until(ends: float) -> Iterator[bool]:
    while True:
        yield time.monotonic() > ends


@contextmanager
def recorded(py_spy: Path, pid: int, seconds: float, out: Path) -> Iterator[None]:
    command = [py_spy, "record", "--pid", pid, "--duration", round(seconds), "--rate", 100]
    flags = ["--format", "raw", "--full-filenames", "--output", out]
    process = subprocess.Popen(list(map(str, [*command, *flags])), stdout=subprocess.DEVNULL)
    try:
        yield
        process.wait(timeout=120)
    finally:
        process.kill()


def report(searches: int, spent: dict[str, float], stacks: dict[tuple[str, ...], int]) -> str:
    """CPU milliseconds a search of each process, and how the controller's are shared out."""
    total = sum(stacks.values())
    own = 1000 * spent["controller"] / searches
    lines = ["| process | CPU ms a search |", "| --- | --- |"]
    lines += [f"| {name} | {1000 * each / searches:.2f} |" for name, each in spent.items()]
    lines += ["", "| part of the controller | share | CPU ms a search |", "| --- | --- | --- |"]
    for name, count in by_part(stacks).most_common():
        lines.append(f"| {name} | {100 * count / total:.0f} % | {own * count / total:.2f} |")
    lines += ["", "| function, with what it calls | share | CPU ms a search |", "| --- " * 3 + "|"]
    for name, count in by_function(stacks).most_common(_FUNCTIONS):
        function, _, path = name.partition(" (")
        label = f"`{function}`, stepback_{path.rpartition('/stepback_')[2]}"
        lines.append(f"| {label} | {100 * count / total:.0f} % | {own * count / total:.2f} |")
    return "\n".join(lines)


def measure(given: argparse.Namespace, folder: Path) -> str:
    settings: dict[str, Any] = {"engine_urls": given.engine} if given.engine else {}
    process, url = start_controller(folder / "log.txt", log_level="warning", **settings)
    try:
        with clock("starting"):
            wait_until_ready(url, process, folder / "log.txt")
        few = itertools.chain(itertools.repeat(False, _WARM), itertools.repeat(True))
        asyncio.run(load(url, given.in_flight, few))
        pids = {"controller": process.pid}
        pids |= {f"engine core {n}": each for n, each in enumerate(cores_below(process.pid))}
        before, mine = {name: cpu_seconds(pid) for name, pid in pids.items()}, _own()
        raw = folder / "raw.txt"
        with (
            clock("measuring", given.seconds),
            recorded(given.py_spy, process.pid, given.seconds, raw),
        ):
            ends = until(time.monotonic() + given.seconds)
            searches = asyncio.run(load(url, given.in_flight, ends))
        spent = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
        spent["client"] = _own() - mine
    finally:
        process.terminate()
        process.wait(timeout=60)
    return f"{searches} searches\n\n" + report(searches, spent, read_stacks(raw.read_text()))


def _own() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--engine", help="a vLLM server instead of one inside")
    parser.add_argument("--py-spy", type=Path, default=Path(".cache/py-spy/bin/py-spy"))
    given = parser.parse_args()
    if not os.access(given.py_spy, os.X_OK):
        parser.error(f"{given.py_spy}: no program: install py-spy as above")
    with tempfile.TemporaryDirectory() as folder:
        print(measure(given, Path(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
