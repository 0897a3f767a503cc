"""Controllers that are killed: each job is answered exactly once, and little is paid twice."""

import json
import signal

import httpx
import pytest

from stepback_core.schemas.jobs import BatchStatus
from tests.server.jobs.conftest import Controllers, batch_in, begin, lines_of, upload, wait_for
from tests.server.jobs.test_batches import line

LINES = 120
IN_FLIGHT = 4
PROBES = 100
"""Samples by which four controllers may see meanwhile that their engine works."""


def _begin_all(url: str) -> str:
    """Begin a batch of all lines, and return its id."""
    with httpx.Client(base_url=url, timeout=300) as client:
        file = upload(client, *(line(f"r{number}") for number in range(LINES)))
        return begin(client, file)["id"]


@pytest.mark.timeout(900)
def test_a_batch_survives_a_controller_that_is_killed_three_times(
    controllers: Controllers,
) -> None:
    with httpx.Client(base_url=controllers.engine, timeout=300) as engine:
        before = engine.get("/told").json()["samples"]
        process, url = controllers.start(batch_searches=IN_FLIGHT)
        id = _begin_all(url)
        for kill in range(3):
            with httpx.Client(base_url=url, timeout=300) as client:
                _wait_for_answers(client, id, (kill + 1) * LINES // 6)
            process.send_signal(signal.SIGKILL)
            process.wait()
            process, url = controllers.start(batch_searches=IN_FLIGHT)
        with httpx.Client(base_url=url, timeout=300) as client:
            batch = batch_in(client, id, BatchStatus.COMPLETED)
            output = [json.loads(each) for each in lines_of(client, batch["output_file_id"])]
        assert [each["custom_id"] for each in output] == [f"r{n}" for n in range(LINES)]
        assert all(each["response"]["body"]["status"] == "solved" for each in output)
        assert batch["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
        paid = engine.get("/told").json()["samples"] - before
        assert LINES <= paid <= LINES + 3 * IN_FLIGHT + PROBES


@pytest.mark.timeout(900)
def test_a_controller_that_stops_in_order_pays_no_line_twice(controllers: Controllers) -> None:
    with httpx.Client(base_url=controllers.engine, timeout=300) as engine:
        before = engine.get("/told").json()["searches"]
        process, url = controllers.start(batch_searches=IN_FLIGHT, grace_seconds=600)
        id = _begin_all(url)
        for stop in range(2):
            with httpx.Client(base_url=url, timeout=300) as client:
                _wait_for_answers(client, id, (stop + 1) * LINES // 4)
            process.terminate()
            # Long before its grace is over: what is in flight ends, and nothing else is waited for.
            process.wait(timeout=300)
            process, url = controllers.start(batch_searches=IN_FLIGHT, grace_seconds=600)
        with httpx.Client(base_url=url, timeout=300) as client:
            batch = batch_in(client, id, BatchStatus.COMPLETED)
        assert batch["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
        assert engine.get("/told").json()["searches"] - before == LINES


def _wait_for_answers(client: httpx.Client, id: str, count: int) -> None:
    def done() -> bool:
        counts = client.get(f"/v1/batches/{id}").json()["request_counts"]
        return int(counts["completed"]) >= count

    wait_for(done)
