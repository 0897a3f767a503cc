"""Latency of a server under load: probed at fixed times, measured from those."""

import queue
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

EVERY_SECONDS = 0.01
PROBES_AT_ONCE = 16


def answer_times(
    ask: Callable[[], object],
    is_over: Callable[[], bool],
    *,
    every: float = EVERY_SECONDS,
    at_once: int = PROBES_AT_ONCE,
) -> list[float]:
    """Seconds from the time that each question was due to its answer. A late answer holds no later
    question back, and one that has to wait for the asker's own threads counts as late: so a pause
    of the server is seen by every question that fell into it, and not by one alone."""
    due_times: queue.SimpleQueue[float | None] = queue.SimpleQueue()

    def work() -> list[float]:
        seconds: list[float] = []
        while (due := due_times.get()) is not None:
            ask()
            seconds.append(time.monotonic() - due)
        return seconds

    with ThreadPoolExecutor(at_once) as pool:
        asked = [pool.submit(work) for _ in range(at_once)]
        due = time.monotonic()
        while not is_over():
            due_times.put(due)
            due += every
            time.sleep(max(0.0, due - time.monotonic()))
        for _ in range(at_once):
            due_times.put(None)
    return [each for one in asked for each in one.result()]
