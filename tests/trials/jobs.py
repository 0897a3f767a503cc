"""Jobs and shared limits under attack: `python -m tests.trials.jobs killed|yielding|outage|cost`.

killed    a batch whose controller is killed three times: each id once, little is paid twice
yielding  callers before and during a batch of 10,000 lines: the 99th percentile of both
outage    callers of two controllers while PostgreSQL stands still for 30 s: none is refused
cost      searches a second and their start, with and without limits that controllers share

The engine answers at once, so that what is measured is the controller and the database.
"""

import argparse
import json
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.postgres import Postgres, postgres
from tests.server.jobs.conftest import (
    BODY,
    Controllers,
    answering_engine,
    batch_in,
    begin,
    lines_of,
    upload,
    wait_for,
)
from tests.server.jobs.fleet import PATIENT, Fleet, limits_of, start
from tests.server.jobs.test_batches import line
from tests.trials.base import verdict

KILLS = 3
IN_FLIGHT = 16
BATCH_LINES = 10_000


def killed(given: argparse.Namespace) -> int:
    """Kill a batch's controller three times; the lines are answered by whoever comes after it."""
    with _engine(given.engine_seconds) as (engine, folder):
        controllers = Controllers(engine, folder)
        try:
            undisturbed = _batch(controllers, given.lines, kills=0)
            disturbed = _batch(controllers, given.lines, kills=KILLS)
        finally:
            controllers.stop()
    extra = disturbed.paid / undisturbed.paid - 1
    return verdict(
        "killed",
        f"{given.lines} lines: {undisturbed.paid} samples undisturbed, {disturbed.paid} with "
        f"{KILLS} kills ({extra:+.2%}); {undisturbed.seconds:.0f} s and {disturbed.seconds:.0f} s",
        logged=[],
        each_id_once_and_solved=undisturbed.is_right and disturbed.is_right,
        little_is_paid_twice=extra <= 0.02,
    )


class _Batch:
    def __init__(self, is_right: bool, paid: int, seconds: float) -> None:
        self.is_right = is_right
        self.paid = paid
        self.seconds = seconds


def _batch(controllers: Controllers, lines: int, *, kills: int) -> _Batch:
    settings = {"batch_searches": IN_FLIGHT}
    patience = max(1800, lines)  # Seconds: a busy machine answers some lines a second.
    before, began = _searches(controllers.engine), time.monotonic()
    process, url = controllers.start(**settings)
    with httpx.Client(base_url=url, timeout=300) as client:
        id = begin(client, upload(client, *(line(f"r{n}") for n in range(lines))))["id"]
    for kill in range(kills):
        with httpx.Client(base_url=url, timeout=300) as client:
            enough = (kill + 1) * lines // (kills + 1)
            wait_for(lambda c=client, e=enough: _completed(c, id) >= e, patience)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process, url = controllers.start(**settings)
    with httpx.Client(base_url=url, timeout=300) as client:
        wait_for(lambda: _completed(client, id) >= lines, patience)
        done = batch_in(client, id, "completed")
        output = [json.loads(each) for each in lines_of(client, done["output_file_id"])]
    process.terminate()
    process.wait()
    is_right = [each["custom_id"] for each in output] == [f"r{n}" for n in range(lines)]
    is_right &= all(each["response"]["body"]["status"] == "solved" for each in output)
    return _Batch(is_right, _searches(controllers.engine) - before, time.monotonic() - began)


def _completed(client: httpx.Client, id: str) -> int:
    return int(client.get(f"/v1/batches/{id}").json()["request_counts"]["completed"])


def _searches(engine: str) -> int:
    return int(httpx.get(f"{engine}/told", timeout=60).json()["searches"])


def yielding(given: argparse.Namespace) -> int:
    """Callers one after the other, without and with a batch that waits, in turns."""
    with _engine(given.engine_seconds) as (engine, folder):
        controllers = Controllers(engine, folder)
        try:
            _, url = controllers.start(log_level="warning")
            seconds: dict[bool, list[float]] = {False: [], True: []}
            is_waiting = True
            with httpx.Client(base_url=url, timeout=300) as client:
                file = upload(client, *(line(f"r{n}") for n in range(given.lines)))
                for _ in range(given.turns):
                    seconds[False] += _asked(client, given.searches)
                    id = begin(client, file)["id"]
                    batch_in(client, id, "in_progress")
                    seconds[True] += _asked(client, given.searches)
                    is_waiting &= _completed(client, id) < given.lines
                    client.post(f"/v1/batches/{id}/cancel")
                    batch_in(client, id, "cancelled")
        finally:
            controllers.stop()
    alone, beside = (_percentiles(seconds[each]) for each in (False, True))
    ratio = beside[1] / alone[1]
    return verdict(
        "yielding",
        f"{len(seconds[False])} searches each: p50 {alone[0]:.0f} ms alone, {beside[0]:.0f} with "
        f"{given.lines} lines; p99 {alone[1]:.0f} and {beside[1]:.0f} ms: {ratio:.2f} times",
        logged=[],
        the_batch_was_waiting=is_waiting,
        callers_hardly_wait=ratio <= 1.2,
    )


def _asked(client: httpx.Client, searches: int) -> list[float]:
    """Seconds of searches one after the other, after some that do not count."""
    return [_timed(client) for _ in range(searches + 5)][5:]


def _timed(client: httpx.Client) -> float:
    began = time.monotonic()
    client.post("/solve", json=BODY).raise_for_status()
    return time.monotonic() - began


def _percentiles(seconds: list[float]) -> tuple[float, float]:
    """The median and the 99th, in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100)
    return 1000 * cuts[49], 1000 * cuts[98]


def outage(given: argparse.Namespace) -> int:
    """Let PostgreSQL stand still under load, and look at every answer."""
    with _engine(given.engine_seconds) as (engine, folder), postgres() as cluster:
        fleet = start(engine, folder, cluster.create("outage"), 2)
        try:
            answered = _through_an_outage(fleet, cluster, given.outage_seconds)
        finally:
            fleet.started.stop()
    statuses, slowest, jobs = answered
    refused = sum(count for status, count in statuses.items() if status != 200)
    return verdict(
        "outage",
        f"PostgreSQL stood still for {given.outage_seconds:.0f} s: {sum(statuses.values())} "
        f"searches, {refused} refused or lost, the slowest {slowest:.2f} s; {jobs} of 40 jobs done",
        logged=[],
        none_refused_or_lost=not refused,
        jobs_go_on=jobs == 40,
    )


def _through_an_outage(
    fleet: Fleet, cluster: Postgres, seconds: float
) -> tuple[dict[int, int], float, int]:
    statuses, slowest, is_over = dict[int, int](), 0.0, False

    def call(number: int) -> None:
        nonlocal slowest
        with fleet.client(number % 2, "few") as client:
            count = 0
            while not is_over:
                count += 1
                headers = {"Idempotency-Key": f"{number}/{count}"}
                began = time.monotonic()
                try:
                    status = client.post("/solve", json=BODY, headers=headers).status_code
                except httpx.HTTPError:
                    status = 0
                slowest = max(slowest, time.monotonic() - began)
                statuses[status] = statuses.get(status, 0) + 1

    with ThreadPoolExecutor(4) as pool, fleet.client(0) as client:
        callers = [pool.submit(call, number) for number in range(4)]
        body = BODY | {"background": True}
        ids = [client.post("/solve", json=body).json()["id"] for _ in range(40)]
        cluster.freeze()
        time.sleep(seconds)
        assert {limits_of(url) for url in fleet.urls} == {"fallback"}
        cluster.thaw()
        for url in fleet.urls:
            wait_for(lambda url=url: limits_of(url) == "shared")
        done = sum(bool(wait_for(lambda id=id: _ended(client, id))) for id in ids)
        is_over = True
        for each in callers:
            each.result()
    return statuses, slowest, done


def _ended(client: httpx.Client, id: str) -> bool:
    return client.get(f"/v1/searches/{id}").json()["status"] == "completed"


def cost(given: argparse.Namespace) -> int:
    """The same load with an unlimited and with a limited key, in turns, on one controller."""
    measured: dict[str, list[tuple[float, float, float]]] = {"any": [], "few": []}
    with _engine(0.0) as (engine, folder), postgres() as cluster:
        fleet = start(engine, folder, cluster.create("cost"), 1, few=16, shared_seconds=PATIENT)
        try:
            for _ in range(given.turns):
                for key, runs in measured.items():
                    runs.append(_loaded(fleet, key, given.searches, given.callers))
        finally:
            fleet.started.stop()
    said = "; ".join(
        f"{name}: {statistics.median(run[0] for run in runs):.0f} searches a second, start p50 "
        f"{statistics.median(run[1] for run in runs):.1f} ms, p99 "
        f"{statistics.median(run[2] for run in runs):.1f} ms"
        for name, runs in measured.items()
    )
    return verdict("cost", f"{given.callers} callers, {said}", logged=[], measured=True)


def _loaded(fleet: Fleet, key: str, searches: int, callers: int) -> tuple[float, float, float]:
    """Searches a second, and the milliseconds to the start of one."""

    def call(_: int) -> list[float]:
        with fleet.client(0, key) as client:
            answers = [client.post("/solve", json=BODY) for _ in range(searches // callers)]
        return [answer.json()["usage"]["seconds_queued"] for answer in answers]

    began = time.monotonic()
    with ThreadPoolExecutor(callers) as pool:
        queued = [each for one in pool.map(call, range(callers)) for each in one]
    return len(queued) / (time.monotonic() - began), *_percentiles(queued)


@contextmanager
def _engine(seconds: float) -> Iterator[tuple[str, Path]]:
    with tempfile.TemporaryDirectory() as folder, answering_engine(Path(folder), seconds) as url:
        yield url, Path(folder)


TRIALS: dict[str, Callable[[argparse.Namespace], int]] = {
    each.__name__: each for each in (killed, yielding, outage, cost)
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trial", choices=TRIALS)
    parser.add_argument("--lines", type=int, default=BATCH_LINES)
    parser.add_argument("--searches", type=int, default=300)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--callers", type=int, default=8)
    parser.add_argument("--engine-seconds", type=float, default=0.05)
    parser.add_argument("--outage-seconds", type=float, default=30.0)
    given: Any = parser.parse_args()
    return TRIALS[given.trial](given)


if __name__ == "__main__":
    sys.exit(main())
