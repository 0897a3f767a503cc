"""Requests to a controller: bounded, patient, and no further than an error. It is scripted here,
behind the real client, since a real one does these things only when it is in trouble."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from stepback_client import AsyncClient, InvalidRequest, Retry, StepbackError
from stepback_core.errors import InvalidInput
from stepback_core.schemas import StopReason, Strategy
from stepback_training.evaluate.measurement import Measured, measure
from stepback_training.evaluate.plan import Setting
from stepback_training.sampling.bounded_gather import Stopped
from tests.training.evaluate.made import RIGHT, answer, plan, result

GREEDY = Setting(strategy=Strategy.GREEDY)
SOLVE, MODELS, VERSION = "/solve", "/v1/models", "/version"
IMPOSSIBLE = {
    "error": {"type": "invalid_request", "code": "out_of_range", "message": "breadth: no"}
}


class Controller:
    """Answers every problem alike; `troubles` are what it answers to searches before, in order."""

    def __init__(
        self,
        *troubles: httpx.Response,
        score: float = -0.1,
        task: str = "countdown",
        digests: Sequence[str | None] = (None,),
    ) -> None:
        self.troubles = list(troubles)
        self.score = score
        self.task = task
        self.first_digest, self.last_digest = digests[0], digests[-1]
        self.solved = self.in_flight = self.most_in_flight = 0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == MODELS:
            model = {"id": "made", "tasks": [self.task], "digest": self.first_digest}
            return httpx.Response(200, json={"data": [model]})
        if request.url.path == VERSION:
            said = {"stepback": "0", "vllm": "0", "protocol": 1, "model": "made"}
            # The first search only gets to know the model.
            digest = self.first_digest if self.solved <= 1 else self.last_digest
            return httpx.Response(200, json=said | {"digest": digest})
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await asyncio.sleep(0.002)
        self.in_flight -= 1
        if self.solved and self.troubles:
            return self.troubles.pop(0)
        self.solved += 1
        return answered(result(answer(RIGHT, self.score)))


def answered(made: object) -> httpx.Response:
    return httpx.Response(200, json=json.loads(made.model_dump_json()))  # pyright: ignore


def ask(controller: Controller, path: Path, in_flight: int = 4) -> Measured:
    async def asking() -> Measured:
        transport = httpx.MockTransport(controller)
        retry = Retry(attempts=3, first_wait=0.01)
        async with AsyncClient("http://made", transport=transport, retry=retry) as client:
            return await measure(
                client,
                plan(GREEDY),
                plan(GREEDY).drawn(),
                path,
                run={},
                in_flight=in_flight,
                at_equal_tokens=False,
                stop=asyncio.Event(),
            )

    return asyncio.run(asking())


@pytest.mark.parametrize("in_flight", [1, 4])
def test_so_many_are_in_flight_and_no_more(tmp_path: Path, in_flight: int) -> None:
    controller = Controller()
    measured = ask(controller, tmp_path / "e.jsonl", in_flight)
    assert controller.most_in_flight == in_flight
    assert len(measured.outcomes) == 20 == controller.solved - 1


def test_what_is_done_is_not_asked_again(tmp_path: Path) -> None:
    ask(Controller(), tmp_path / "e.jsonl")
    again = Controller()
    assert len(ask(again, tmp_path / "e.jsonl").runs) == 2
    assert again.solved == 1


def test_a_controller_in_trouble_is_waited_for(tmp_path: Path) -> None:
    controller = Controller(httpx.Response(503), httpx.Response(429), httpx.Response(503))
    assert len(ask(controller, tmp_path / "e.jsonl").outcomes) == 20


@pytest.mark.parametrize(
    ("trouble", "cause"),
    [
        (answered(result(stop=StopReason.CANCELLED)), StepbackError),
        (httpx.Response(422, json=IMPOSSIBLE), InvalidRequest),
    ],
)
def test_what_cannot_be_waited_for_stops_it_and_the_rest_is_kept(
    tmp_path: Path, trouble: httpx.Response, cause: type[Exception]
) -> None:
    path = tmp_path / "e.jsonl"
    troubled = Controller(trouble)
    with pytest.raises(Stopped) as stopped:
        ask(troubled, path)
    assert isinstance(stopped.value.__cause__, cause)
    # The other three in flight came back, and are kept; the one in trouble is asked again.
    again = Controller()
    assert len(ask(again, path).outcomes) == 20
    assert again.solved - 1 == 20 - 3


def test_other_weights_under_the_same_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    assert ask(Controller(digests=["one"]), path).model["digest"] == "one"
    with pytest.raises(InvalidInput, match=r'another model.digest \("one", now "two"\)'):
        ask(Controller(digests=["two"]), path)
    # The digest says it all, whatever the rounding of a score.
    ask(Controller(digests=["one"], score=-0.2), path)


def test_a_controller_that_tells_no_digest_is_known_by_a_score(tmp_path: Path) -> None:
    ask(Controller(), tmp_path / "e.jsonl")
    ask(Controller(score=-0.101), tmp_path / "e.jsonl")
    with pytest.raises(InvalidInput, match="other weights"):
        ask(Controller(score=-0.2), tmp_path / "e.jsonl")


def test_what_was_asked_of_who_knows_which_weights_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    with pytest.raises(StepbackError, match="keep others from loading"):
        ask(Controller(digests=["one", "two"]), path)
    assert len(path.read_text().splitlines()) == 1
    again = Controller(digests=["one"])
    assert len(ask(again, path).outcomes) == 20 == again.solved - 1


def test_a_model_of_another_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="made knows maze"):
        ask(Controller(task="maze"), tmp_path / "e.jsonl")
    assert not (tmp_path / "e.jsonl").exists()
