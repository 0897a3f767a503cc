"""Searches with a scorer: real checkpoint, real HTTP scorer, an engine from a script."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse, Response

from stepback_core.events import CandidateEvent, ProgressEvent
from stepback_core.schemas import Select, SolveRequest, SolveResult, Status, StopReason
from stepback_server.app import create_app
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import SampleRequest
from stepback_server.errors import ApiError
from stepback_server.gateway.keys import new_key
from stepback_server.scorers.named import Scorers
from stepback_server.settings import Settings
from stepback_server.solve.order import AcceptedRequest
from stepback_server.solve.solver import Solver
from stepback_server.solve.stream import Feed, LiveSearch
from tests.conftest import CHECKPOINT, free_port
from tests.server.scorers.service import Reply, judged, serving
from tests.server.search.scripted import ScriptedEngine

PROMPT = "countdown:3,5=15"
TASK = {"task": "countdown", "problem": {"numbers": [3, 5], "target": 15}}
RIGHT = "5*3=15"
WRONG = ["5+3=8", "5-3=2"]
UNKNOWN_SECONDS = 3600


def accept(solver: Solver, request: SolveRequest) -> AcceptedRequest:
    return asyncio.run(solver.accept(request))


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return Checkpoint.open(CHECKPOINT)


def writing(checkpoint: Checkpoint, answers: Sequence[str]) -> ScriptedEngine:
    """An engine whose samples are these answers in turn; the steps of one stand on lines."""
    numbers = iter(range(1000))
    tokens = checkpoint.codec.tokens

    def script(request: SampleRequest, index: int) -> tuple[int, ...]:
        text = answers[next(numbers) % len(answers)]
        ids = checkpoint.codec.tokenizer.encode(text, add_special_tokens=False)
        return (*ids, tokens.end_id)

    return ScriptedEngine(script)


def named(folder: Path, url: str, more: str = "") -> Scorers:
    path = folder / "scorers.toml"
    path.write_text(f'[mine]\nurl = "{url}"\n{more}')
    return Scorers.read(path, {}, lambda name, outcome, seconds: None)


def search(
    checkpoint: Checkpoint,
    scorers: Scorers,
    answers: Sequence[str] = (WRONG[0], RIGHT, WRONG[1]),
    **fields: Any,
) -> SolveResult:
    asked = {"scorer": "mine", "strategy": "best_of_n", "breadth": 4, "candidates": 8} | fields
    if "task" not in asked:
        asked["prompt"] = PROMPT

    async def run() -> SolveResult:
        solver = Solver(checkpoint, Settings(), scorers)
        order = await solver.accept(SolveRequest.model_validate(asked))
        try:
            return await solver.solve(order, writing(checkpoint, answers), 0.0)
        finally:
            await scorers.close()

    return asyncio.run(run())


def likes(text: str) -> Reply:
    """A scorer that likes and accepts one text alone."""

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        return {
            "verdicts": [
                {"id": each["id"], "score": 0.9 if each["text"] == text else 0.2}
                | {"ok": each["text"] == text}
                for each in body["candidates"]
            ]
        }

    return reply


def test_a_free_prompt_is_solved_by_what_the_scorer_accepts(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    with serving(likes(RIGHT)) as service:
        result = search(checkpoint, named(tmp_path, service.url))
    assert result.status is Status.SOLVED and result.stop_reason is StopReason.SOLVED
    assert (result.select, result.scorer) == (Select.VERIFIED, "mine")
    assert result.answer and (result.answer.text, result.answer.scorer_score) == (RIGHT, 0.9)
    assert result.usage.scored >= 2 and result.usage.unscored == 0
    assert 0 < result.usage.seconds_scoring <= result.usage.seconds_searching
    body = service.bodies[0]
    assert (body["task"], body["problem"], body["prompt"]) == (None, None, PROMPT)
    assert all(each["final"] for body in service.bodies for each in body["candidates"])


def test_what_it_refuses_is_unsolved_and_says_why(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with serving(judged(lambda each: 0.1, ok=False, reason="too short")) as service:
        result = search(checkpoint, named(tmp_path, service.url))
    assert result.status is Status.UNSOLVED and result.stop_reason is StopReason.EXHAUSTED
    assert {answer.reason for answer in result.candidates} == {"too short"}


def test_equal_answers_are_asked_once(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with serving(judged(lambda each: 0.1)) as service:
        result = search(checkpoint, named(tmp_path, service.url), [RIGHT], breadth=16)
    asked = [each["text"] for body in service.bodies for each in body["candidates"]]
    assert asked == [RIGHT] and result.usage.scored == 1
    assert result.answer and result.answer.votes == 16


def test_the_scores_choose_where_nothing_is_decided(checkpoint: Checkpoint, tmp_path: Path) -> None:
    order = {WRONG[0]: 0.2, RIGHT: 0.3, WRONG[1]: 0.9}
    with serving(judged(lambda each: order[each["text"]])) as service:
        result = search(checkpoint, named(tmp_path, service.url), select="score", **TASK)
    assert [answer.text for answer in result.candidates] == [WRONG[1], RIGHT, WRONG[0]]
    # The task has checked it all the same, and has not ended the search.
    assert result.status is Status.UNSOLVED and result.stop_reason is StopReason.EXHAUSTED


def test_a_task_and_a_scorer_must_both_accept(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with serving(likes(WRONG[0])) as service:
        result = search(checkpoint, named(tmp_path, service.url), **TASK)
    assert result.status is Status.UNSOLVED
    by_text = {answer.text: answer for answer in result.candidates}
    assert by_text[RIGHT].verified is False and by_text[RIGHT].reason == "scorer_refused"
    assert by_text[WRONG[0]].verified is False and by_text[WRONG[0]].scorer_score == 0.9
    with serving(likes(RIGHT)) as service:
        result = search(checkpoint, named(tmp_path, service.url), **TASK)
    assert result.status is Status.SOLVED


async def _never() -> Response:
    await asyncio.sleep(UNKNOWN_SECONDS)
    return PlainTextResponse("")


@pytest.mark.parametrize("fields", [{}, TASK], ids=["prompt", "task"])
@pytest.mark.parametrize(
    ("reply", "more"),
    [
        (lambda body: PlainTextResponse("", 500), ""),
        (lambda body: PlainTextResponse('{"verdicts": [{"id": "0", "ok": true}]}'), ""),
        (lambda body: _never(), "timeout = 0.2"),
    ],
    ids=["dead", "broken", "slow"],
)
def test_one_that_fails_makes_answers_unverified(
    checkpoint: Checkpoint, tmp_path: Path, reply: Reply, more: str, fields: dict[str, Any]
) -> None:
    with serving(reply) as service:
        result = search(checkpoint, named(tmp_path, service.url, more), [RIGHT], **fields)
    assert result.status is Status.UNVERIFIED and result.stop_reason is StopReason.EXHAUSTED
    assert result.answer and result.answer.reason == "scorer_failed"
    assert (result.answer.verified, result.answer.scorer_score) == (None, None)
    assert result.usage.scored == 0 and result.usage.unscored >= 1


def test_a_search_that_nothing_can_solve_any_more_ends_early(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    """With what it has, long before its budget."""
    texts = [f"{each}+3={each + 3}" for each in range(50)]
    with serving(lambda body: PlainTextResponse("", 500)) as service:
        scorers = named(tmp_path, service.url, "failures = 2")
        result = search(checkpoint, scorers, texts, breadth=64, budget={"tokens": 4096})
    assert (result.status, result.stop_reason) == (Status.UNVERIFIED, StopReason.CHECKER_FAILED)
    assert result.answer and (result.answer.verified, result.answer.reason) == (
        None,
        "scorer_failed",
    )
    assert result.usage.scored == 0 and result.usage.engine_requests < 64


def test_one_that_has_no_opinion_is_not_dead(checkpoint: Checkpoint, tmp_path: Path) -> None:
    texts = [f"{each}+3={each + 3}" for each in range(50)]
    with serving(lambda body: {"verdicts": []}) as service:
        result = search(checkpoint, named(tmp_path, service.url, "failures = 2"), texts, breadth=16)
    assert result.stop_reason is StopReason.EXHAUSTED
    assert result.usage.engine_requests == 16


def test_one_that_comes_back_still_ends_the_search(checkpoint: Checkpoint, tmp_path: Path) -> None:
    likes_it, calls = likes(RIGHT), [0]

    def reply(body: dict[str, Any]) -> Response | dict[str, Any]:
        calls[0] += 1
        return PlainTextResponse("", 500) if calls[0] <= 3 else likes_it(body)  # type: ignore[return-value]

    with serving(reply) as service:
        scorers = named(tmp_path, service.url, "failures = 5")
        result = search(checkpoint, scorers, [RIGHT], breadth=64)
    assert result.stop_reason is StopReason.SOLVED


def test_one_that_only_scores_takes_nothing_from_a_task_by_failing(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    more = 'kind = "vllm-score"\nmodel = "m"'
    scorers = named(tmp_path, f"http://127.0.0.1:{free_port()}/score", more)
    result = search(checkpoint, scorers, **TASK)
    assert result.status is Status.SOLVED and result.answer
    assert result.answer.scorer_score is None


def test_the_searchs_own_deadline_holds(checkpoint: Checkpoint, tmp_path: Path) -> None:
    with serving(lambda body: _never()) as service:
        begun = time.monotonic()
        scorers = named(tmp_path, service.url, "timeout = 600")
        result = search(checkpoint, scorers, [RIGHT], budget={"seconds": 0.5})
    assert time.monotonic() - begun < 120
    assert result.status is Status.UNVERIFIED and result.stop_reason is StopReason.DEADLINE


def test_a_scorer_that_nobody_named_is_refused_with_those_that_are(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    scorers = named(tmp_path, "http://127.0.0.1:1/")
    for known, message in ((scorers, "this server has mine"), (Scorers(), "has no scorers")):
        solver = Solver(checkpoint, Settings(), known)
        with pytest.raises(ApiError, match=message) as error:
            accept(solver, SolveRequest(prompt=PROMPT, scorer="http://127.0.0.1:1/"))
        assert (error.value.status, error.value.code) == (404, "unknown_scorer")


def test_one_that_only_scores_verifies_no_prompt(checkpoint: Checkpoint, tmp_path: Path) -> None:
    more = 'kind = "vllm-score"\nmodel = "m"'
    solver = Solver(checkpoint, Settings(), named(tmp_path, "http://127.0.0.1:1/", more))
    chosen = accept(solver, SolveRequest(prompt=PROMPT, scorer="mine"))
    assert chosen.select is Select.SCORE
    with pytest.raises(ApiError, match="select by score"):
        accept(solver, SolveRequest(prompt=PROMPT, scorer="mine", select=Select.VERIFIED))


def test_unfinished_answers_are_scored_where_the_operator_wants_it(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    with serving(judged(lambda each: 0.5)) as service:
        result = search(
            checkpoint,
            named(tmp_path, service.url, "partial = true\nweight = 2"),
            ["3+5=8\n8+1=9"],
            strategy="best_first",
            breadth=1,
        )
    asked = {(each["text"], each["final"]) for b in service.bodies for each in b["candidates"]}
    assert ("3+5=8", False) in asked and ("3+5=8\n8+1=9", True) in asked
    assert result.usage.scored == len(asked)


def test_events_tell_the_scorers_verdict(checkpoint: Checkpoint, tmp_path: Path) -> None:
    async def watched(scorers: Scorers) -> list[ProgressEvent | None]:
        solver = Solver(checkpoint, Settings(), scorers)
        order = await solver.accept(
            SolveRequest.model_validate({"prompt": PROMPT, "scorer": "mine", "strategy": "greedy"})
        )

        async def solve(feed: Feed) -> SolveResult:
            return await solver.solve(order, writing(checkpoint, [RIGHT]), 0.0, feed)

        live = LiveSearch(solve)
        await live.begin()
        events = [event async for event in live.events()]
        await scorers.close()
        return events

    with serving(likes(RIGHT)) as service:
        events = asyncio.run(watched(named(tmp_path, service.url)))
    [told] = [event for event in events if isinstance(event, CandidateEvent)]
    assert told.answer.verified is True and told.answer.scorer_score == 0.9


def test_a_server_lists_its_scorers_and_forwards_no_callers_key(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    key, line = new_key("somebody")

    async def ask(url: str) -> tuple[httpx.Response, httpx.Response, httpx.Response]:
        path = tmp_path / "scorers.toml"
        path.write_text(f'[mine]\nurl = "{url}"')
        settings = Settings.model_validate(
            {"checkers_file": path, "keys": line, "database_url": ""}
        )
        app = create_app(settings, checkpoint, lambda: writing(checkpoint, [RIGHT]))
        transport = httpx.ASGITransport(app)
        headers = {"Authorization": f"Bearer {key}"}
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://s", headers=headers) as client,
        ):
            async with asyncio.timeout(60):
                while (await client.get("/ready")).status_code != 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            body = {"prompt": PROMPT, "scorer": "mine"}
            return (
                await client.get("/v1/models"),
                await client.post("/solve", json=body),
                await client.get("/metrics"),
            )

    with serving(likes(RIGHT)) as service:
        models, solved, metrics = asyncio.run(ask(service.url))
    assert {tuple(each["scorers"]) for each in models.json()["data"]} == {("mine",)}
    assert solved.json()["status"] == "solved"
    assert 'stepback_scorer_calls_total{outcome="answered",scorer="mine"} 1.0' in metrics.text
    assert 'stepback_scorer_seconds_count{scorer="mine"} 1.0' in metrics.text
    assert service.headers
    for headers in service.headers:
        assert "authorization" not in headers and key not in str(headers)
