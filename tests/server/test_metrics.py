"""Metrics: of a real controller, and of the engine's rounds by the wrapper alone."""

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from stepback_core.schemas import SolveRequest, Strategy
from stepback_server.app import create_app
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import EngineUnavailable, Sample, SampleRequest
from stepback_server.engine.supervisor import Supervisor
from stepback_server.gateway.tenant import Tenant
from stepback_server.observability.engine import ObservedEngine
from stepback_server.reload import Served
from stepback_server.service import Service
from stepback_server.settings import Settings
from tests.conftest import CHECKPOINT
from tests.server.keeping import metrics
from tests.server.search.scripted import END, GRAMMAR, NEWLINE, ScriptedEngine
from tests.server.test_edge import SEARCH, unreachable

PROMPT = (7, 8)
CANARY = SampleRequest(ids=PROMPT, n=1, max_tokens=1, temperature=0.0, seeds=None, stop_ids=())


def value(page: str, series: str) -> float:
    [line] = [line for line in page.splitlines() if line.startswith(f"{series} ")]
    return float(line.rpartition(" ")[2])


def test_rounds_and_the_controllers_own_time_are_told_apart() -> None:
    counted = metrics()
    engine = ObservedEngine(
        ScriptedEngine(lambda request, index: (END,), delay=0.02), counted, GRAMMAR, len(PROMPT)
    )

    async def search() -> None:
        for ids in (PROMPT, (*PROMPT, 9, NEWLINE, 9, NEWLINE)):
            request = SampleRequest(
                ids=ids, n=2, max_tokens=4, temperature=1.0, seeds=None, stop_ids=(END,)
            )
            await engine.sample(request, asyncio.Event(), record)
            time.sleep(0.003)  # noqa: ASYNC251 - the controller at work
        engine.finish()

    def record(sample: Sample) -> None:
        time.sleep(0.001)

    asyncio.run(search())
    page = counted.render().decode()
    assert value(page, "stepback_engine_round_seconds_count") == 2
    assert value(page, "stepback_controller_seconds_count") == 2
    # Two deliveries and a pause a round are the controller's; the engine's 40 ms are not.
    own = value(page, "stepback_controller_seconds_sum")
    assert own >= 2 * (2 * 0.001 + 0.003)
    assert own < value(page, "stepback_engine_round_seconds_sum")
    assert value(page, "stepback_kept_steps_sum") == 2


class Moody(ScriptedEngine):
    """Delivers three tokens every 20 ms; dies of the fifth sample where it is told to."""

    def __init__(self, *, dies: bool) -> None:
        super().__init__(lambda request, index: self._ids(index), delay=0.02)
        self._dies = dies

    def _ids(self, index: int) -> tuple[int, ...]:
        if self._dies and index == 4:
            raise EngineUnavailable("the engine has died")
        return (7, 7, 7)


@pytest.mark.parametrize("dies", [False, True])
def test_what_was_generated_in_vain_is_counted_as_it_comes(dies: bool) -> None:
    """For a caller who hangs up after three samples or so, or whose engine dies after four."""
    body = SolveRequest(prompt="countdown:3,5=15", strategy=Strategy.BEST_OF_N, breadth=32)
    checkpoint = Checkpoint.open(CHECKPOINT)

    waited = 0.0

    async def scenario() -> str:
        nonlocal waited
        keeper = Supervisor(lambda: Moody(dies=dies), CANARY)
        service = Service(Settings(max_searches=1), Served(checkpoint), keeper)
        running = asyncio.create_task(service.run())
        while not keeper.up:  # noqa: ASYNC110 - it has no event for it
            await asyncio.sleep(0.01)
        calls = [asyncio.create_task(service.solve(body, Tenant("alice"))) for _ in range(2)]
        if not dies:
            while not value(service.metrics.render().decode(), "stepback_queued"):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            begun = time.monotonic()
            await asyncio.sleep(0.07)
            waited = time.monotonic() - begun
            for call in calls:
                call.cancel()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        given_up = EngineUnavailable if dies else asyncio.CancelledError
        assert [type(end) for end in ends] == [given_up] * 2
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return service.metrics.render().decode()

    page = asyncio.run(scenario())
    generated = value(page, 'stepback_tokens_total{kind="generated"}')
    assert generated == 24 if dies else 3 <= generated < 96
    assert value(page, 'stepback_tokens_total{kind="discarded"}') == generated
    assert value(page, 'stepback_key_tokens_total{key="alice"}') == generated
    assert value(page, "stepback_samples_total") >= 32
    # The second waited for the first: until it had died of it, or until it left the queue.
    assert value(page, "stepback_queue_seconds_count") == 2
    assert value(page, "stepback_queue_seconds_sum") > waited


def test_live_values_are_read_when_they_are_asked_for() -> None:
    page = metrics().render().decode()
    assert value(page, "stepback_searching") == 1
    assert value(page, "stepback_queued") == 2
    assert value(page, "stepback_engines_up") == 1
    assert value(page, "stepback_engine_restarts_total") == 3


def test_every_metric_is_described_as_it_is_rendered() -> None:
    counted = metrics()
    kinds = dict(re.findall(r"^# TYPE (stepback_\w+) (\w+)$", counted.render().decode(), re.M))
    rendered = {name: kind for name, kind in kinds.items() if not name.endswith("_created")}
    assert rendered == {each.name: each.kind for each in counted.described}


def test_the_page_needs_no_vllm() -> None:
    script = (
        "import sys; from tests.server.test_metrics import metrics\n"
        "assert b'stepback_engines_up 1.0' in metrics().render()\n"
        "assert 'vllm' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)


def test_a_search_is_counted_with_its_rounds_and_one_given_up_as_abandoned(server: str) -> None:
    def page() -> str:
        return httpx.get(f"{server}/metrics", timeout=300).text

    body = {"task": "countdown", "problem": {"numbers": [3, 5, 7, 25], "target": 41}}
    slow = body | {
        "strategy": "self_backtracking",
        "breadth": 256,
        "backtracks": 16,
        "select": "perplexity",
    }
    before = page()
    assert httpx.post(f"{server}/solve", json=body, timeout=300).status_code == 200
    after = page()
    names = ("engine_round_seconds", "controller_seconds", "answer_steps", "kept_steps")
    for name in names:
        series = f"stepback_{name}_count"
        assert value(after, series) > value(before, series), name
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server}/solve", json=slow, timeout=0.3)
    deadline = time.monotonic() + 300
    while value(page(), "stepback_abandoned_total") == value(before, "stepback_abandoned_total"):
        assert time.monotonic() < deadline, "the hang-up was not counted"
        time.sleep(0.05)


def test_jobs_are_counted_while_they_wait_and_while_they_run(tmp_path: Path) -> None:
    async def scenario() -> None:
        # The engine never comes, so that what is begun runs on.
        settings = Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", max_searches=1)  # pyright: ignore[reportArgumentType]
        app = create_app(settings, Checkpoint.open(CHECKPOINT), unreachable)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://c", timeout=300) as client,
            asyncio.timeout(200),
        ):
            for _ in range(3):
                answer = await client.post("/solve", json=SEARCH | {"background": True})
                assert answer.status_code == 202
            seen = None
            while seen != (2, 1):
                await asyncio.sleep(0.1)
                page = (await client.get("/metrics")).text
                seen = value(page, "stepback_jobs_waiting"), value(page, "stepback_jobs_running")

    asyncio.run(scenario())
