"""Cost of a Ray cluster: `make ray-bench`, on a machine without other work.

Lines a second with one actor and with two, each with the bundled model in an engine of its own,
and the CPU milliseconds of a line by process: the engines, the actors' own part (the search), the
command that hands out the lines, and Ray. The last two are what limits how far actors scale.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

import psutil
from cluster import begin, wait_for
from tests.conftest import CHECKPOINT

from stepback_training.generators import GENERATORS, Split

ROLES = {"EngineCore": "engine", "SearchActor": "actor"}


@dataclass(frozen=True, slots=True)
class Moment:
    """Progress of a run, and the CPU seconds of its processes by role."""

    lines: int
    seconds: float
    cpu: Counter[str]


def look(driver: psutil.Process, out: Path) -> Moment:
    cpu = Counter[str]()
    for process in [driver, *driver.children(recursive=True)]:
        try:
            role = "command" if process == driver else _role(process)
            times = process.cpu_times()
        except psutil.Error:
            continue
        cpu[role] += times.user + times.system
    return Moment(_count(out), time.monotonic(), cpu)


def _role(process: psutil.Process) -> str:
    name = " ".join(process.cmdline()) or process.name()
    return next((role for part, role in ROLES.items() if part in name), "Ray")


def _count(out: Path) -> int:
    return out.read_bytes().count(b"\n") if out.exists() else 0


def run(lines: int, actors: int, in_flight: int) -> tuple[float, dict[str, float]]:
    """Lines a second, and the CPU milliseconds of a line by role, between 20 % and 90 %."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given, out = folder / "in.jsonl", folder / "out.jsonl"
        problems = islice(GENERATORS["countdown"].stream(Split.TEST_SEEN, Random(1)), lines)
        body = {"task": "countdown", "breadth": 8, "seed": 0, "budget": {"tokens": 200}}
        given.write_text(
            "".join(
                json.dumps(body | {"problem": each.model_dump(mode="json")}) + "\n"
                for each in problems
            )
        )
        flags = ["--on", "ray", "--actors", str(actors), "--in-flight", str(in_flight)]
        process = begin(["batch", given, "--out", out, "--model", CHECKPOINT, *flags], folder)
        try:
            return _measured(process, out, lines)
        finally:
            process.terminate()
            process.wait()


def _measured(
    process: "subprocess.Popen[bytes]", out: Path, lines: int
) -> tuple[float, dict[str, float]]:
    driver = psutil.Process(process.pid)
    moments = list[Moment]()
    for share in (0.2, 0.9):
        wait_for(lambda share=share: _count(out) >= share * lines or process.poll() is not None)
        assert process.poll() is None, "it ended before its end"
        moments.append(look(driver, out))
    began, ended = moments
    done = ended.lines - began.lines
    spent = {role: 1000 * (ended.cpu[role] - began.cpu[role]) / done for role in ended.cpu}
    return done / (ended.seconds - began.seconds), spent


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=1000)
    parser.add_argument("--in-flight", type=int, default=16)
    given = parser.parse_args()
    os.environ.setdefault("STEPBACK_THREADS", "1")
    speeds = dict[int, float]()
    for actors in (1, 2):
        speeds[actors], spent = run(given.lines, actors, given.in_flight)
        parts = ", ".join(f"{role} {spent[role]:.1f}" for role in sorted(spent))
        print(f"{actors} actors: {speeds[actors]:.1f} lines a second; CPU ms a line: {parts}")
        share = (spent["command"] + spent["Ray"]) / sum(spent.values())
        print(f"          the command and Ray: {share:.1%} of all CPU", flush=True)
    print(f"two over one: {speeds[2] / speeds[1]:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
