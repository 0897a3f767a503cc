"""Cost of processes, read from Linux, and vLLM servers that each have a CPU core of their own."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from stepback_server.gc_tuning import tune_gc
from tests.conftest import start_controller, wait_until_ready
from tests.probing import answer_times
from tests.process_tree import cores_below
from tests.server.engine.conftest import VllmServer

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used, all of its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [size] = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return int(size) / 1024


def series(page: str, name: str) -> float:
    """The sum of a metric's series on a page of `/metrics`."""
    lines = [line for line in page.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


class PinnedServer(VllmServer):
    """A vLLM server, every thread of it on one core."""

    def __init__(self, log: Path, core: int) -> None:
        # vLLM binds its threads itself unless told where: two servers would choose the same core.
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = str(core)
        super().__init__(log)
        os.sched_setaffinity(self.process.pid, {core})

    @property
    def core_pid(self) -> int:
        """The process of vLLM's engine core."""
        [pid] = cores_below(self.process.pid)
        return pid


@contextmanager
def replicas(folder: Path, count: int) -> Iterator[list[PinnedServer]]:
    """Start `count` replicas, each on a core of its own; whatever else this process starts runs on
    the other cores, where there are any."""
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        started: list[PinnedServer] = []
        for core in cores[:count]:
            started.append(PinnedServer(folder / f"replica-{core}.txt", core))
            stack.callback(started[-1].stop)
        del os.environ["VLLM_CPU_OMP_THREADS_BIND"]
        for each in started:
            each.wait_until_up()
        os.sched_setaffinity(0, set(cores[count:]) or set(cores))
        stack.callback(os.sched_setaffinity, 0, set(cores))
        yield started


@contextmanager
def controller_of(servers: list[PinnedServer], log: Path) -> Iterator[tuple[str, int]]:
    """The URL and the process of a controller over them, for many searches in flight."""
    process, url = start_controller(
        log,
        engine_urls=",".join(each.url for each in servers),
        max_searches=128,
        log_level="warning",
    )
    try:
        wait_until_ready(url, process, log)
        yield url, process.pid
    finally:
        process.terminate()
        process.wait(timeout=30)


_PROBES_EVERY = 0.04
"""Seconds. Each probe is work for the controller whose share is being measured."""


def probe(url: str, seconds: float) -> list[float]:
    """Seconds that `GET /health` took, each time, asked for so long; for a process of its own."""
    # Else a full collection of what was imported here, half a second, is taken for the server's.
    tune_gc()
    ends = time.monotonic() + seconds
    with httpx.Client(base_url=url) as client:
        return answer_times(
            lambda: client.get("/health").raise_for_status(),
            lambda: time.monotonic() > ends,
            every=_PROBES_EVERY,
        )
