"""Three controllers on one PostgreSQL count as one, and each for itself while that is gone."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.postgres import Postgres
from tests.server.jobs.conftest import BODY, answering_engine, wait_for
from tests.server.jobs.fleet import FEW, PATIENT, TOKENS_A_MINUTE, Fleet, limits_of, start

pytestmark = pytest.mark.timeout(900)
SECONDS = 0.2


@pytest.fixture(scope="module")
def fleet(cluster: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    with answering_engine(folder, SECONDS) as engine:
        database = cluster.create("limits")
        fleet = start(engine, folder, database, 3, shared_seconds=PATIENT)
        yield fleet
        fleet.started.stop()


def test_searches_in_flight_hold_in_sum_and_are_used(fleet: Fleet) -> None:
    served = Counter[int]()

    def ask(number: int) -> int:
        with fleet.client(number % 3, "few") as client:
            status = client.post("/solve", json=BODY).status_code
        served[number % 3] += 1
        return status

    with ThreadPoolExecutor(30) as pool:
        assert set(pool.map(ask, range(60))) == {200}
    assert fleet.told()["most_at_once"] == FEW
    assert served == {0: 20, 1: 20, 2: 20}


def test_tokens_a_minute_hold_in_sum(fleet: Fleet) -> None:
    spent, refused, began = 0, 0, time.monotonic()
    one = 0
    for number in range(30):
        with fleet.client(number % 3, "poor") as client:
            answer = client.post("/solve", json=BODY)
        if answer.status_code == 200:
            one = answer.json()["usage"]["generated_tokens"]
            spent += one
        else:
            assert answer.json()["error"]["code"] == "tokens_per_minute"
            refused += 1
    filled = TOKENS_A_MINUTE * (1 + (time.monotonic() - began) / 60)
    # A search may start while anything is left, so each controller may leave one in debt.
    assert TOKENS_A_MINUTE / 2 < spent <= filled + 3 * one
    assert refused


def test_a_repeated_key_joins_at_another_controller(fleet: Fleet) -> None:
    before = fleet.told()["searches"]
    headers = {"Idempotency-Key": "one"}

    def ask(number: int) -> httpx.Response:
        with fleet.client(number) as client:
            return client.post("/solve", json=BODY, headers=headers)

    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(ask, range(3)))
    answers.append(ask(1))
    assert fleet.told()["searches"] == before + 1
    assert len({answer.content for answer in answers}) == 1
    assert sum("Idempotent-Replayed" in answer.headers for answer in answers) == 3
    with fleet.client(2) as client:
        other = client.post("/solve", json=BODY | {"seed": 1}, headers=headers)
        assert other.json()["error"]["code"] == "idempotency_mismatch"
        told = client.post("/solve", json=BODY | {"stream": True}, headers=headers)
    with fleet.client(0, "few") as client:
        assert (
            "Idempotent-Replayed" not in client.post("/solve", json=BODY, headers=headers).headers
        )
    assert told.headers["Idempotent-Replayed"] == "true"
    assert "event: result" in told.text
    assert fleet.told()["searches"] == before + 2


def test_a_killed_controller_loses_no_job_and_keeps_no_place(
    cluster: Postgres, engine: str, tmp_path: Path
) -> None:
    fleet = start(engine, tmp_path, cluster.create("killed"), 3, shared_seconds=PATIENT)
    try:
        with fleet.client(0, "few") as client, fleet.client(1, "few") as other:
            body = BODY | {"background": True}
            ids = [client.post("/solve", json=body).json()["id"] for _ in range(60)]
            wait_for(lambda: client.get(f"/v1/searches/{ids[5]}").json()["ended_at"])
            fleet.started.processes[0].send_signal(signal.SIGKILL)
            for id in ids:
                job = wait_for(lambda id=id: ended(other, id))
                assert job["status"] == "completed", job
    finally:
        fleet.started.stop()


def ended(client: httpx.Client, id: str) -> dict[str, Any] | None:
    job = client.get(f"/v1/searches/{id}").json()
    return job if job["ended_at"] else None


@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_an_outage_refuses_no_search_and_jobs_go_on(
    cluster: Postgres, engine: str, tmp_path: Path, how: str
) -> None:
    fleet = start(engine, tmp_path, cluster.create(how), 2, shared_seconds=2)
    try:
        with Callers(fleet) as callers, fleet.client(0) as client:
            jobs = [client.post("/solve", json=BODY | {"background": True}) for _ in range(20)]
            (cluster.stop if how == "stopped" else cluster.freeze)()
            for url in fleet.urls:
                wait_for(lambda url=url: limits_of(url) == "fallback")
            callers.go_on(40)
            metrics = httpx.get(f"{fleet.urls[0]}/metrics", timeout=60).text
            assert "stepback_limits_fallback 1.0" in metrics
            (cluster.start if how == "stopped" else cluster.thaw)()
            for url in fleet.urls:
                wait_for(lambda url=url: limits_of(url) == "shared")
            callers.go_on(40)
            for id in [job.json()["id"] for job in jobs]:
                assert wait_for(lambda id=id: ended(client, id))
        assert callers.statuses.keys() == {200}
    finally:
        if how == "frozen":
            cluster.thaw()
        fleet.started.stop()


class Callers:
    """Callers with a limited key and a key of their own for each request, at every controller."""

    def __init__(self, fleet: Fleet) -> None:
        self.statuses = Counter[int]()
        self._fleet = fleet
        self._is_over = threading.Event()
        self._pool = ThreadPoolExecutor(4)

    def __enter__(self) -> "Callers":
        self._running = [self._pool.submit(self._call, number) for number in range(4)]
        return self

    def _call(self, number: int) -> None:
        with self._fleet.client(number % len(self._fleet.urls), "few") as client:
            for count in range(100_000):
                if self._is_over.is_set():
                    return
                headers = {"Idempotency-Key": f"{number}/{count}"}
                answer = client.post("/solve", json=BODY, headers=headers)
                self.statuses[answer.status_code] += 1

    def go_on(self, searches: int) -> None:
        """Return after so many more searches."""
        enough = self.statuses.total() + searches
        wait_for(lambda: self.statuses.total() >= enough or any(e.done() for e in self._running))

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._pool.shutdown()
        for each in self._running:
            each.result()
