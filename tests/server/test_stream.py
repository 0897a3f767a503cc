"""`POST /solve` with `stream`, on the bundled checkpoint, with the real vLLM behind it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from stepback_client import (
    AsyncClient,
    Client,
    CountdownProblem,
    NotFound,
    ProgressEvent,
    ResultEvent,
)
from stepback_core.schemas import Outcome, TreeNode

PROBLEM = CountdownProblem(numbers=[3, 5, 7, 25], target=41)
# Hot, since samples that the model is sure of are all one, and soon done.
LONG: dict[str, Any] = {
    "strategy": "self_backtracking",
    "temperature": 2.0,
    "select": "perplexity",
    "breadth": 256,
    "backtracks": 16,
}


@pytest.fixture(scope="module")
def client(server: str) -> Iterator[Client]:
    with Client(server) as client:
        yield client


def follow(client: Client, **options: Any) -> list[ProgressEvent]:
    with client.stream(PROBLEM, **options) as events:
        return list(events)


def test_the_events_tell_the_search_and_the_result_is_the_usual_one(client: Client) -> None:
    options: dict[str, Any] = {
        "strategy": "self_backtracking",
        "select": "perplexity",
        "temperature": 2.0,
        "seed": 4,
        "candidates": 1024,
    }
    events = follow(client, tree=True, backtracks=2, **options)
    started, *told, done = events
    assert started.type == "started" and isinstance(done, ResultEvent)
    result = done.result
    assert (started.id, started.model, started.select) == (result.id, result.model, result.select)
    assert started.limits.tokens == 100_000
    assert {event.type for event in told} >= {"step", "backtrack", "candidate"}
    # What was told is the tree, steps that a marker cut short excepted.
    for node in (result.tree or [])[1:]:
        assert_told(node, told)
    usual = client.solve(PROBLEM, tree=True, backtracks=2, **options)
    assert usual.answer == result.answer and usual.tree == result.tree
    assert usual.candidates == result.candidates


def assert_told(node: TreeNode, told: list[ProgressEvent]) -> None:
    mine = [event for event in told if event.type != "usage" and branch_of(event) == node.id]
    steps = [event for event in mine if event.type == "step"]
    assert [step.text for step in steps] == node.steps[: len(steps)]
    assert len(node.steps) - len(steps) <= (node.outcome is not Outcome.ANSWER)
    assert [step.index for step in steps] == [node.kept_steps + i for i in range(len(steps))]
    assert all(step.parent == node.parent for step in steps)
    [end] = [event for event in mine if event.type in ("backtrack", "candidate")]
    assert (end.type == "backtrack") == (node.outcome is Outcome.BACKTRACK)
    if end.type == "backtrack":
        assert (end.parent, end.kept_steps) == (node.parent, node.kept_steps)
        assert [step.text for step in end.struck][-1:] == node.steps[-1:] or not node.steps


def branch_of(event: ProgressEvent) -> int | None:
    return getattr(event, "branch", None)


def test_totals_grow_and_a_deadline_ends_in_a_result(client: Client) -> None:
    # Long enough for an event with samples in flight where other tests keep the machine busy.
    *told, done = follow(client, seconds=5, **LONG)
    totals = [event for event in told if event.type == "usage"]
    assert totals and len(totals) <= 25
    assert any(total.in_flight > 0 for total in totals)
    tokens = [total.generated_tokens for total in totals]
    assert tokens == sorted(tokens)
    assert isinstance(done, ResultEvent) and done.result.stop_reason == "deadline"
    assert tokens[-1] <= done.result.usage.generated_tokens


@pytest.mark.parametrize("stream", [True, False])
def test_an_error_before_the_start_is_an_ordinary_one(server: str, stream: bool) -> None:
    body = {"task": "chess", "problem": {}, "stream": stream}
    refused = httpx.post(f"{server}/solve", json=body, timeout=300)
    assert refused.status_code == 404 and refused.json()["error"]["code"] == "unknown_task"
    body = {"prompt": "x", "breadth": 0, "stream": stream}
    assert httpx.post(f"{server}/solve", json=body, timeout=300).status_code == 422
    with Client(server) as client, pytest.raises(NotFound), client.stream(prompt="x", model="m"):
        pass


async def until_a_candidate(events: AsyncIterator[ProgressEvent]) -> None:
    await anext(event async for event in events if event.type == "candidate")


def test_leaving_in_mid_stream_ends_the_engines_work(server: str) -> None:
    async def leave() -> list[dict[str, Any]]:
        async with (
            AsyncClient(server) as client,
            httpx.AsyncClient(base_url=server, timeout=300) as http,
        ):
            async with client.stream(PROBLEM, **LONG) as events:
                await until_a_candidate(events)
                assert (await http.get("/ready")).json()["running"] > 0
            after: list[dict[str, Any]] = []
            for _ in range(20):
                await asyncio.sleep(0.1)
                after.append((await http.get("/ready")).json())
            return after

    after = asyncio.run(leave())
    quiet = [state for state in after if state["running"] == state["searching"] == 0]
    assert quiet and after[-1] in quiet


def test_the_schema_documents_every_event(server: str) -> None:
    schema = httpx.get(f"{server}/openapi.json", timeout=300).json()
    answer = schema["paths"]["/solve"]["post"]["responses"]["200"]
    assert "comments" in answer["description"]
    event = answer["content"]["text/event-stream"]["schema"]
    assert set(event["required"]) == {"event", "data"}
    events = event["properties"]["data"]["contentSchema"]
    assert events["discriminator"]["propertyName"] == "type"
    names = [each["$ref"].rpartition("/")[2] for each in events["oneOf"]]
    assert set(events["discriminator"]["mapping"]) == {
        "started", "step", "backtrack", "candidate", "usage", "result", "error"
    }  # fmt: skip
    for name in [*names, "StruckStep", "SearchLimits"]:
        for field, text in schema["components"]["schemas"][name]["properties"].items():
            assert field == "type" or "description" in text, f"{name}.{field} is not described"
