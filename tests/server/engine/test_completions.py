"""The wire format of vLLM's completions, from what a real server was seen to send."""

import json
from dataclasses import replace

import pytest
from aiohttp import ClientPayloadError

from stepback_server.engine.base import Finish, SampleRequest
from stepback_server.engine.completions import Lines, Stream, request_body

USAGE = (
    'data: {"choices":[],"usage":{"prompt_tokens":3,"prompt_tokens_details":{"cached_tokens":32}}}'
)


def request(n: int = 2, alternatives: int = 0) -> SampleRequest:
    return SampleRequest(
        ids=(4, 5, 6),
        n=n,
        max_tokens=5,
        temperature=0.7,
        seeds=tuple(range(3, 3 + n)),
        stop_ids=(2, 100),
        alternatives=alternatives,
    )


def chunk(index: int, *ids: int, finish: str | None = None) -> str:
    choice = {
        "index": index,
        "text": "",
        "token_ids": ids,
        "finish_reason": finish,
        "logprobs": {
            "token_logprobs": [-0.5] * len(ids),
            "top_logprobs": [{f"token_id:{id}": -0.5, "token_id:100": -2.5} for id in ids],
        },
    }
    return "data: " + json.dumps({"choices": [choice]})


def test_a_continuation_is_given_out_when_it_ends_and_the_last_brings_what_was_cached() -> None:
    stream = Stream(request(alternatives=2))
    assert stream.feed(chunk(0, 9)) == stream.feed(chunk(1, 8)) == []
    [first] = stream.feed(chunk(1, 7, 2, finish="stop"))
    assert (first.index, first.ids, first.finish) == (1, (8, 7, 2), Finish.STOP)
    assert first.logprobs == (-0.5,) * 3 and first.alternatives == (((100, -2.5),),) * 3
    assert stream.feed(chunk(0, 9, 9, 9, 9, finish="length")) == []
    assert not stream.is_complete
    [last] = stream.feed(USAGE)
    assert (last.index, last.finish, last.cached_tokens) == (0, Finish.LENGTH, 64)
    assert stream.is_complete and stream.feed("data: [DONE]") == []


def test_a_server_that_tells_nothing_of_its_cache_is_believed_to_have_none() -> None:
    stream = Stream(request(n=1))
    assert stream.feed(chunk(0, 2, finish="stop")) == []
    [sample] = stream.feed("data: [DONE]")
    assert sample.cached_tokens == 0


def test_an_abort_by_name_leaves_nothing_unknown() -> None:
    """vLLM names what it aborted, but not what it aborted before its first token."""
    stream = Stream(request(n=3))
    stream.feed(chunk(0, 9))
    aborted = stream.feed(chunk(0, 8, finish="abort"))
    aborted += stream.feed(USAGE) + stream.feed("data: [DONE]")
    assert [(s.index, s.ids, s.finish, s.generated_tokens) for s in aborted] == [
        (0, (9, 8), Finish.ABORTED, 2),
        (1, (), Finish.ABORTED, 0),
        (2, (), Finish.ABORTED, 0),
    ]


def test_a_dropped_connection_costs_the_most_that_it_can_have_cost() -> None:
    stream = Stream(request(n=2))
    stream.feed(chunk(0, 9))
    dropped = stream.give_up(was_sent=True)
    assert [(s.ids, s.unseen_tokens, s.generated_tokens) for s in dropped] == [
        ((9,), 4, 5),
        ((), 5, 5),
    ]
    assert [s.generated_tokens for s in Stream(request()).give_up(was_sent=False)] == [0, 0]


@pytest.mark.parametrize(
    "line",
    [
        'data: {"error": {"message": "EngineCore encountered an issue", "code": 500}}',
        'data: {"choices": [{"index": 0, "text": "no ids"}]}',
        chunk(7, 2, finish="stop"),
        chunk(0, 2, finish="tired"),
        "data: {",
    ],
)
def test_an_answer_that_cannot_be_read_is_an_error(line: str) -> None:
    with pytest.raises(ClientPayloadError):
        Stream(request()).feed(line)


def test_lines_come_whole_wherever_the_network_cuts_them() -> None:
    answer = 'data: {"é": 1}\r\n\r\ndata: [DONE]\n\n'.encode()
    for size in range(1, len(answer) + 1):
        lines = Lines()
        pieces = [answer[begin : begin + size] for begin in range(0, len(answer), size)]
        got = [line for piece in pieces for line in lines.cut(piece) if line]
        assert got == ['data: {"é": 1}', "data: [DONE]"]


@pytest.mark.parametrize("data", [b"data: \xff\n", b"x" * ((1 << 24) + 1)])
def test_what_is_no_line_of_text_is_an_error(data: bytes) -> None:
    with pytest.raises(ClientPayloadError):
        Lines().cut(data)


def test_everything_that_a_server_could_fill_in_by_itself_is_said() -> None:
    body = json.loads(request_body(request(alternatives=4), model="m", name="x"))
    assert body["prompt"] == [4, 5, 6] and body["n"] == 2 and body["seed"] == 3
    assert body["logprobs"] == 4
    assert body["user"] is None
    named = replace(request(), tree="a tree")
    assert json.loads(request_body(named, model="m", name="x"))["user"] == "a tree"
    assert (body["top_p"], body["top_k"], body["repetition_penalty"]) == (1.0, 0, 1.0)
