"""OpenAI's own SDK."""

import asyncio
import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from conftest import LINE, MODEL, PATIENCE, SOLVED
from openai import AsyncOpenAI, OpenAI

CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": LINE}]}


@pytest.fixture(scope="module")
def client(base_url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=base_url, api_key="none", timeout=PATIENCE) as client:
        yield client


def test_an_answer_has_content_reasoning_and_usage(client: OpenAI) -> None:
    answer = client.chat.completions.create(**CHAT)
    [choice] = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", SOLVED)
    assert choice.finish_reason == "stop" and answer.object == "chat.completion"
    told: Any = choice.message
    assert "candidate " in told.reasoning and told.reasoning == told.reasoning_content
    assert answer.usage and answer.usage.completion_tokens_details
    assert answer.usage.total_tokens > answer.usage.prompt_tokens > 0
    assert answer.system_fingerprint and answer.created > 0
    extra: Any = answer
    assert extra.stepback["verified"] is True


def test_fields_of_a_search_go_by_extra_body(client: OpenAI) -> None:
    for extra in ({"strategy": "greedy"}, {"stepback": {"strategy": "greedy"}}):
        answer: Any = client.chat.completions.create(**CHAT, extra_body=extra)
        assert answer.stepback["strategy"] == "greedy"
    problem = json.dumps({"numbers": [4, 16, 25, 82], "target": 95})
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": problem}],
        extra_body={"task": "countdown", "budget": {"tokens": 2000}},
    )
    assert answer.stepback["status"] == "solved"


def test_a_stream_gives_role_reasoning_content_finish_and_usage(client: OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True})
    )
    *told, last = chunks
    assert last.usage and last.usage.total_tokens > 0 and not last.choices
    assert told[0].choices[0].delta.role == "assistant"
    deltas: list[Any] = [chunk.choices[0].delta for chunk in told]
    assert "".join(delta.content or "" for delta in deltas) == SOLVED
    assert any(getattr(delta, "reasoning", None) for delta in deltas)
    finishes = [chunk.choices[0].finish_reason for chunk in told]
    assert finishes == [None] * (len(told) - 1) + ["stop"]
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_sdks_own_reader_of_streams_puts_an_answer_together(client: OpenAI) -> None:
    with client.chat.completions.stream(**CHAT) as stream:
        kinds = {event.type for event in stream}
        whole = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert whole.choices[0].message.content == SOLVED


def test_several_answers_are_distinct_and_best_first(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        **CHAT, n=3, temperature=1, extra_body={"strategy": "best_of_n", "select": "perplexity"}
    )
    texts = [choice.message.content for choice in answer.choices]
    assert [choice.index for choice in answer.choices] == list(range(len(texts)))
    assert len(set(texts)) == len(texts) <= 3


def test_completions_take_texts_and_token_ids(client: OpenAI, url: str) -> None:
    ids = _tokens(url, LINE)
    for prompt in (LINE, [LINE], ids, [ids]):
        assert client.completions.create(model=MODEL, prompt=prompt).choices[0].text == SOLVED
    other = "countdown:1,2,3,4=10"
    answer = client.completions.create(model=MODEL, prompt=[LINE, other, LINE])
    texts = [choice.text for choice in answer.choices]
    assert texts[0] == texts[2] == SOLVED != texts[1]


def test_completions_stream(client: OpenAI) -> None:
    chunks = list(client.completions.create(model=MODEL, prompt=LINE, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == SOLVED
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_models_are_listed_and_found(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names[0] == MODEL and f"{MODEL}:greedy" in names
    found = client.models.retrieve(MODEL)
    assert (found.id, found.object) == (MODEL, "model") and found.created > 0 and found.owned_by
    answer: Any = client.chat.completions.create(**CHAT | {"model": f"{MODEL}:greedy"})
    assert answer.stepback["strategy"] == "greedy" and answer.model == f"{MODEL}:greedy"


def test_errors_are_the_sdks_own(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**CHAT, top_p=0.5)
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", "top_p")
    assert refused.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(**CHAT | {"model": "other"})
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError, match="/v1/chat/completions"):
        client.responses.create(model=MODEL, input=LINE)
    with pytest.raises(openai.BadRequestError):
        client.completions.create(model=MODEL, prompt=LINE, echo=True)


def test_the_least_effort_is_greedy(client: OpenAI) -> None:
    answer: Any = client.chat.completions.create(**CHAT, reasoning_effort="none")
    assert answer.stepback["strategy"] == "greedy"


def test_many_calls_at_once(base_url: str) -> None:
    async def ask() -> list[str | None]:
        async with AsyncOpenAI(base_url=base_url, api_key="none", timeout=PATIENCE) as client:
            answers = await asyncio.gather(
                *(client.chat.completions.create(**CHAT) for _ in range(16))
            )
        return [answer.choices[0].message.content for answer in answers]

    assert asyncio.run(ask()) == [SOLVED] * 16


def test_a_stream_that_is_left_ends_the_engines_work(client: OpenAI, url: str) -> None:
    stream = client.chat.completions.create(
        **CHAT,
        stream=True,
        temperature=2,
        extra_body={
            "strategy": "self_backtracking",
            "select": "perplexity",
            "sampling": "independent",
            "breadth": 64,
            "backtracks": 16,
        },
    )
    next(chunk for chunk in stream if getattr(chunk.choices[0].delta, "reasoning", None))
    stream.close()
    deadline = time.monotonic() + PATIENCE
    while (state := _get(f"{url}/ready"))["running"] or state["searching"]:
        assert time.monotonic() < deadline, state
        time.sleep(0.5)


def _get(address: str) -> dict[str, Any]:
    with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def _tokens(url: str, text: str) -> list[int]:
    request = urllib.request.Request(
        f"{url}/tokenize",
        data=json.dumps({"prompt": text}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        ids: list[int] = json.load(answer)["tokens"]
        return ids
