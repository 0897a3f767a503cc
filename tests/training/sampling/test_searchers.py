"""Searches on a cluster: one without a result is a row, and what a journal has is not asked."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from stepback_client import SolveOptions, StepbackError
from stepback_client.batch import Solve, Stopped
from stepback_core.manifest import weights_digest
from stepback_training.collect_errors import cli
from stepback_training.config import DataRecipe
from stepback_training.improve.problems import training_questions
from stepback_training.improve.served_checkpoint import OnRay, SearchConfig, Weights
from stepback_training.sampling import searchers
from stepback_training.sampling.searchers import Cluster
from tests.conftest import CHECKPOINT
from tests.training.evaluate.made import result

WEIGHTS = Weights("m", CHECKPOINT, "one")
WAY = SearchConfig(name="search", options=SolveOptions(breadth=2), seed=0)
QUESTIONS = list(islice(training_questions(DataRecipe(samples=1), 1), 6))


class Ray:
    """A cluster that has no result for the searches named by number, from 0."""

    def __init__(self, digest: str, failing: set[int]) -> None:
        self.digest = digest
        self.failing = failing
        self.opened = 0
        self.asked: list[dict[str, Any]] = []

    @asynccontextmanager
    async def open(self, model: Path, actors: int, in_flight: int) -> AsyncGenerator[Solve]:
        self.opened += 1
        yield self.solve

    async def solve(self, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(body)
        if len(self.asked) - 1 in self.failing:
            return {"error": {"status": 500, "message": "4 actors were lost with this search"}}
        found = result().model_copy(update={"digest": self.digest})
        return {"result": found.model_dump(mode="json")}


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Ray:
    digest, failing = getattr(request, "param", ("one", {1, 4}))
    cluster = Ray(digest, failing)
    monkeypatch.setattr(searchers, "on_ray", cluster.open)
    return cluster


def test_a_search_that_fails_is_an_outcome_and_the_actors_stay(ray: Ray, tmp_path: Path) -> None:
    with closing(OnRay(Cluster(2, 1))) as engines:
        first = engines.ask(QUESTIONS, WAY, WEIGHTS, tmp_path / "a.jsonl", "a")
        engines.ask(QUESTIONS, WAY, WEIGHTS, tmp_path / "b.jsonl", "b")
    assert [each.failure is None for each in first].count(False) == 2
    assert [each.tokens for each in first].count(100) == 4
    assert (ray.opened, len(ray.asked)) == (1, 12)
    # Each is in the journal, a failure too: none is asked again.
    with closing(OnRay(Cluster(2, 1))) as engines:
        assert engines.ask(QUESTIONS, WAY, WEIGHTS, tmp_path / "a.jsonl", "a") == first
    assert (ray.opened, len(ray.asked)) == (1, 12)


def test_other_weights_and_a_training_have_actors_of_their_own(ray: Ray, tmp_path: Path) -> None:
    with closing(OnRay(Cluster(1, 2))) as engines:
        engines.ask(QUESTIONS, WAY, WEIGHTS, tmp_path / "a.jsonl", "a")
        engines.release()
        engines.ask(QUESTIONS, WAY, WEIGHTS, tmp_path / "b.jsonl", "b")
        ray.digest = "two"
        engines.ask(QUESTIONS, WAY, Weights("m", CHECKPOINT, "two"), tmp_path / "c.jsonl", "c")
    assert ray.opened == 3


@pytest.mark.parametrize("ray", [("two", {0})], indirect=True)
def test_a_node_with_other_weights_stops_the_run(ray: Ray, tmp_path: Path) -> None:
    with closing(OnRay(Cluster(1, 1))) as engines, pytest.raises(Stopped) as caught:
        engines.ask(QUESTIONS, WAY, WEIGHTS, tmp_path / "a.jsonl", "a")
    assert isinstance(caught.value.__cause__, StepbackError)
    assert "other weights" in str(caught.value.__cause__)


@pytest.mark.parametrize("ray", [("one", set(range(6)))], indirect=True)
def test_a_round_in_which_all_fail_says_why(ray: Ray, tmp_path: Path) -> None:
    with (
        closing(OnRay(Cluster(1, 1))) as engines,
        pytest.raises(ValueError, match="every search failed, the last one by: 4 actors were lost"),
    ):
        engines.ask(QUESTIONS, WAY, WEIGHTS, tmp_path / "a.jsonl", "a")


@pytest.mark.parametrize(
    ("ray", "status"),
    [((weights_digest(CHECKPOINT), {1}), 0), ((weights_digest(CHECKPOINT), {0, 1, 2}), 1)],
    indirect=["ray"],
)
def test_errors_says_how_many_failed(
    ray: Ray, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--out", str(tmp_path / "errors.jsonl"), "--problems", "3", "--on", "ray"]
    assert cli.errors([*given, "--model", str(CHECKPOINT)]) == status
    assert f"{len(ray.failing)} of 3 searches failed" in capsys.readouterr().err
    asked = len(ray.asked)
    assert cli.errors([*given, "--model", str(CHECKPOINT)]) == status
    assert len(ray.asked) == asked


def test_a_cluster_needs_a_model_that_knows_the_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--out", str(tmp_path / "errors.jsonl"), "--problems", "3", "--on", "ray"]
    assert cli.errors(given) == 2
    assert "--on ray needs --model" in capsys.readouterr().err
