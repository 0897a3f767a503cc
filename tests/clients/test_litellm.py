"""LiteLLM's provider of OpenAI-compatible servers."""

import asyncio
from typing import Any

import litellm
import pytest
from conftest import LINE, MODEL, PATIENCE, SOLVED


@pytest.fixture
def asked(base_url: str) -> dict[str, Any]:
    return {
        "model": f"openai/{MODEL}",
        "api_base": base_url,
        "api_key": "none",
        "timeout": PATIENCE,
        "messages": [{"role": "user", "content": LINE}],
    }


def test_an_answer_keeps_its_reasoning(asked: dict[str, Any]) -> None:
    answer: Any = litellm.completion(**asked)
    [choice] = answer.choices
    assert (choice.message.content, choice.finish_reason) == (SOLVED, "stop")
    assert "candidate " in choice.message.reasoning_content
    assert answer.usage.total_tokens > 0


def test_a_stream_adds_up_to_the_answer(asked: dict[str, Any]) -> None:
    chunks: list[Any] = list(
        litellm.completion(**asked, stream=True, stream_options={"include_usage": True})
    )
    *told, last = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in told) == SOLVED
    assert not last.choices and last.usage.total_tokens > 0
    whole: Any = litellm.stream_chunk_builder(chunks)
    assert whole.choices[0].message.content == SOLVED


def test_it_asks_asynchronously(asked: dict[str, Any]) -> None:
    answer: Any = asyncio.run(litellm.acompletion(**asked))
    assert answer.choices[0].message.content == SOLVED


def test_fields_of_a_search_go_by_extra_body(asked: dict[str, Any]) -> None:
    answer: Any = litellm.completion(**asked, extra_body={"strategy": "greedy"})
    assert answer.stepback["strategy"] == "greedy"


def test_a_refusal_is_a_bad_request(asked: dict[str, Any]) -> None:
    with pytest.raises(litellm.BadRequestError, match="presence_penalty"):
        litellm.completion(**asked, presence_penalty=1)


def test_completions_of_text(asked: dict[str, Any]) -> None:
    asked |= {"model": f"text-completion-openai/{MODEL}", "prompt": LINE}
    del asked["messages"]
    answer: Any = litellm.text_completion(**asked)
    assert answer.choices[0].text == SOLVED
