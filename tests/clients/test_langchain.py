"""LangChain's chat model and its model of completions."""

from typing import Any

import openai
import pytest
from conftest import LINE, MODEL, PATIENCE, SOLVED
from langchain_openai import ChatOpenAI, OpenAI

OTHER = "countdown:1,2,3,4=10"


@pytest.fixture(scope="module")
def chat(base_url: str) -> ChatOpenAI:
    return _chat(base_url)


def _chat(base_url: str, **fields: Any) -> ChatOpenAI:
    return ChatOpenAI(model=MODEL, base_url=base_url, api_key="none", timeout=PATIENCE, **fields)


def test_a_message_has_the_answer_alone(chat: ChatOpenAI) -> None:
    message = chat.invoke(LINE)
    assert message.content == SOLVED
    assert message.usage_metadata and message.usage_metadata["total_tokens"] > 0
    assert message.response_metadata["finish_reason"] == "stop"


def test_a_stream_adds_up_to_the_answer(base_url: str) -> None:
    chunks = list(_chat(base_url, stream_usage=True).stream(LINE))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert whole.content == SOLVED
    assert whole.usage_metadata and whole.usage_metadata["total_tokens"] > 0


def test_a_batch_is_answered_in_its_order(chat: ChatOpenAI) -> None:
    first, second, third = chat.batch([LINE, OTHER, LINE])
    assert first.content == third.content == SOLVED != second.content


def test_fields_of_a_search_go_by_extra_body(base_url: str) -> None:
    greedy = _chat(base_url, temperature=0, extra_body={"strategy": "greedy"})
    assert greedy.invoke(LINE).content
    with pytest.raises(openai.BadRequestError, match="breadth"):
        _chat(base_url, extra_body={"stepback": {"breadth": 0}}).invoke(LINE)


def test_tools_are_refused_and_not_swallowed(chat: ChatOpenAI) -> None:
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    with pytest.raises(openai.BadRequestError, match="tools"):
        chat.bind_tools([add]).invoke(LINE)


def test_completions_are_answered_and_streamed(base_url: str) -> None:
    model = OpenAI(model=MODEL, base_url=base_url, api_key="none", timeout=PATIENCE)
    assert model.invoke(LINE) == SOLVED
    assert "".join(model.stream(LINE)) == SOLVED
    first, second = model.batch([LINE, OTHER])
    assert first == SOLVED != second
