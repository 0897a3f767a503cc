"""OpenAI's routes on the bundled checkpoint, with the real vLLM behind them."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.conftest import SERVED

LINE = "countdown:4,16,25,82=95"
PROBLEM = {"numbers": [4, 16, 25, 82], "target": 95}
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": LINE}]}
SECONDS = 120


def post(server: str, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    return httpx.post(f"{server}{path}", json=body, headers=headers, timeout=SECONDS)


def chat(server: str, **fields: Any) -> dict[str, Any]:
    answer = post(server, "/v1/chat/completions", CHAT | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refusal(server: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = post(server, path, body)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    return error


def test_a_prompt_line_is_a_problem_with_its_checker(server: str) -> None:
    answer = chat(server)
    [choice] = answer["choices"]
    solved = post(server, "/solve", {"task": "countdown", "problem": PROBLEM}).json()
    assert choice["message"]["content"] == solved["answer"]["text"]
    assert choice["finish_reason"] == "stop" and answer["stepback"]["verified"] is True
    assert "candidate " in choice["message"]["reasoning"]
    assert choice["message"]["reasoning"] == choice["message"]["reasoning_content"]
    assert len(answer["system_fingerprint"]) == 12
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_a_task_takes_its_problem_as_json(server: str) -> None:
    messages = [{"role": "user", "content": json.dumps(PROBLEM)}]
    answer = chat(server, messages=messages, stepback={"task": "countdown"})
    assert answer["stepback"]["status"] == "solved"


def test_a_problem_unlike_those_in_training_is_said_here_too(server: str) -> None:
    messages = [{"role": "user", "content": "countdown:3,5,2=30"}]
    answer = chat(server, messages=messages, strategy="greedy")
    assert "numbers has 3 entries" in answer["stepback"]["warning"]
    assert chat(server, strategy="greedy")["stepback"]["warning"] is None


def test_no_answer_is_an_empty_one_that_ended_by_length(server: str) -> None:
    [choice] = chat(server, max_tokens=2)["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "length")


def test_log_probabilities_are_those_of_solve(server: str) -> None:
    solved = post(server, "/solve", {"task": "countdown", "problem": PROBLEM, "logprobs": True})
    answer = solved.json()["answer"]
    [choice] = chat(server, logprobs=True)["choices"]
    told = choice["logprobs"]["content"]
    assert "".join(each["token"] for each in told).rstrip("\n") == choice["message"]["content"]
    assert bytes(told[0]["bytes"]).decode() == told[0]["token"]
    assert [each["logprob"] for each in told] == pytest.approx(
        answer["logprobs"][: len(told)], abs=0.01
    )
    body = {"prompt": LINE, "logprobs": 0, "stop": "\n"}
    [choice] = post(server, "/v1/completions", body).json()["choices"]
    found = choice["logprobs"]
    assert "".join(found["tokens"]) == choice["text"] == "16-4=12"
    starts = zip(found["text_offset"], found["tokens"], strict=True)
    assert all(choice["text"].startswith(token, place) for place, token in starts)


def test_log_probabilities_leave_given_steps_out(server: str) -> None:
    body = {"prompt": LINE, "logprobs": 0, "steps": ["16-4=12"]}
    [choice] = post(server, "/v1/completions", body).json()["choices"]
    found = choice["logprobs"]
    assert found["text_offset"][0] == len("16-4=12\n")
    assert choice["text"].startswith("16-4=12\n" + "".join(found["tokens"][:5]))


def test_text_ends_before_a_stop(server: str) -> None:
    whole = chat(server)["choices"][0]["message"]["content"]
    cut = chat(server, stop=["\n"])["choices"][0]["message"]["content"]
    assert cut == whole.partition("\n")[0] != whole


def test_the_least_effort_is_greedy_and_so_is_a_models_name(server: str) -> None:
    assert chat(server, reasoning_effort="none")["stepback"]["strategy"] == "greedy"
    assert chat(server, model=f"{SERVED}:greedy")["stepback"]["strategy"] == "greedy"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"top_p": 0.5}, "top_p"),
        ({"top_p": True}, "top_p"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"store": True}, "store"),
        ({"n": 2, "best_of": 3}, "best_of"),
        ({"logprobs": True, "top_logprobs": 2}, "top_logprobs"),
        ({"messages": [{"role": "system", "content": "x"}, *CHAT["messages"]]}, "messages.0.role"),
        ({"messages": CHAT["messages"] * 2}, "messages.1"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages.0.content.0",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused(
    server: str, fields: dict[str, Any], param: str
) -> None:
    error = refusal(server, "/v1/chat/completions", CHAT | fields)
    assert (error["code"], error["param"]) == ("unsupported_parameter", param)


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 5, "max_completion_tokens": 6},
        {"strategy": "greedy", "stepback": {"strategy": "greedy"}},
        {"stepback": {"nonsense": 1}},
        {"seed": 2**63},
        {"stop": list("abcde")},
        {"stream_options": {"include_usage": True}},
        {"reasoning_effort": "low", "budget": {"tokens": 5}},
        {"budget": {"tokens": 0}},
        {"messages": []},
    ],
)
def test_what_makes_no_sense_is_refused(server: str, fields: dict[str, Any]) -> None:
    refusal(server, "/v1/chat/completions", CHAT | fields)


def test_what_changes_nothing_is_accepted_and_the_unknown_is_counted(server: str) -> None:
    before = ignored(server)
    chat(
        server,
        **{"top_p": 1, "user": "u", "metadata": {}, "store": False, "seed": -5},
        **{"response_format": {"type": "text"}, "tools": [], "frobnicate": 1},
    )
    assert ignored(server) == before + 1


def ignored(server: str) -> float:
    lines = httpx.get(f"{server}/metrics", timeout=300).text.splitlines()
    return float(next(li for li in lines if li.startswith("stepback_ignored_fields_total"))[30:])


def test_a_header_sets_the_budget_and_only_one_place_may(server: str) -> None:
    header = {"X-Stepback-Budget-Tokens": "3"}
    answer = post(server, "/v1/chat/completions", CHAT, **header).json()
    assert answer["usage"]["completion_tokens"] <= 3
    twice = post(server, "/v1/chat/completions", CHAT | {"budget": {"tokens": 3}}, **header)
    assert twice.status_code == 400


def test_a_stream_has_chunks_alone_in_their_order(server: str) -> None:
    body = CHAT | {"stream": True, "stream_options": {"include_usage": True}}
    text = post(server, "/v1/chat/completions", body).text
    assert "event:" not in text
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    chunks = [json.loads(line) for line in lines]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    *told, finish, usage = chunks
    assert usage["choices"] == [] and usage["usage"]["total_tokens"] > 0
    assert finish["choices"][0]["finish_reason"] == "stop"
    assert all(each["choices"][0]["finish_reason"] is None for each in told)
    deltas = [each["choices"][0]["delta"] for each in told]
    content = "".join(each.get("content") or "" for each in deltas)
    assert content == chat(server)["choices"][0]["message"]["content"]
    assert any("reasoning" in each for each in deltas)


def test_prompts_come_as_texts_ids_and_lists_of_both(server: str) -> None:
    ids = post(server, "/tokenize", {"prompt": LINE}).json()["tokens"]
    assert post(server, "/detokenize", {"tokens": ids}).json() == {"prompt": LINE}
    expected = chat(server)["choices"][0]["message"]["content"]
    for prompt in (LINE, [LINE], ids, [ids], LINE + "\n"):
        answer = post(server, "/v1/completions", {"prompt": prompt}).json()
        assert [each["text"] for each in answer["choices"]] == [expected]
    other = "countdown:1,2,3,4=10"
    last = post(server, "/v1/completions", {"prompt": other}).json()["choices"][0]["text"]
    assert last != expected
    answer = post(server, "/v1/completions", {"prompt": [ids, LINE, other]}).json()
    assert [each["index"] for each in answer["choices"]] == [0, 1, 2]
    assert [each["text"] for each in answer["choices"]] == [expected, expected, last]


def test_each_of_several_prompts_has_n_choices(server: str) -> None:
    body = {"prompt": [LINE, LINE], "n": 2, "strategy": "greedy"}
    choices = post(server, "/v1/completions", body).json()["choices"]
    assert [each["index"] for each in choices] == [0, 1, 2, 3]
    assert [each["finish_reason"] for each in choices] == ["stop", "length"] * 2
    assert choices[1]["text"] == choices[3]["text"] == ""


@pytest.mark.parametrize(
    "fields",
    [{"echo": True}, {"logprobs": 1}, {"suffix": "x"}, {"prompt": [[9999]]}, {"prompt": []}],
)
def test_a_completion_that_cannot_be_given_is_refused(server: str, fields: dict[str, Any]) -> None:
    refusal(server, "/v1/completions", {"prompt": LINE} | fields)


def test_models_have_entries_of_their_own(server: str) -> None:
    data = httpx.get(f"{server}/v1/models", timeout=300).json()["data"]
    assert [each["id"] for each in data][:2] == [SERVED, f"{SERVED}:best_first"]
    for each in data:
        assert httpx.get(f"{server}/v1/models/{each['id']}", timeout=300).json() == each
        assert each["created"] > 0 and each["max_model_len"] == 256
    assert httpx.head(f"{server}/v1/models/{SERVED}", timeout=300).status_code == 200
    missing = httpx.get(f"{server}/v1/models/some/other", timeout=300)
    assert missing.status_code == 404 and missing.json()["error"]["code"] == "model_not_found"


def test_the_responses_api_names_the_way_that_there_is(server: str) -> None:
    answer = post(server, "/v1/responses", {"input": "x"})
    assert answer.status_code == 404 and "/v1/chat/completions" in answer.json()["error"]["message"]


def test_a_batch_answers_row_by_row_and_a_failing_row_is_a_row(server: str) -> None:
    rows = [
        {"problem": PROBLEM},
        {"problem": {"numbers": [1, 2, 3, 4], "target": 10}},
        {"task": "chess"},
    ]
    answer = post(server, "/solve/batch", {"requests": rows, "defaults": {"task": "countdown"}})
    told = {row["index"]: row for row in map(json.loads, answer.text.splitlines())}
    assert [told[index]["status"] for index in range(3)] == [200, 200, 422]
    assert told[0]["result"]["status"] == "solved"


def test_a_caller_who_leaves_a_stream_ends_the_engines_work(server: str) -> None:
    body = CHAT | {"stream": True, "strategy": "self_backtracking", "select": "perplexity"}
    body |= {"temperature": 2, "sampling": "independent", "breadth": 256, "backtracks": 16}

    async def leave() -> list[dict[str, Any]]:
        async with httpx.AsyncClient(base_url=server, timeout=SECONDS) as http:
            async with http.stream("POST", "/v1/chat/completions", json=body) as answer:
                async for line in answer.aiter_lines():
                    if "candidate" in line:
                        break
            states: list[dict[str, Any]] = []
            for _ in range(60):
                states.append((await http.get("/ready")).json())
                if states[-1]["running"] == states[-1]["searching"] == 0:
                    break
                await asyncio.sleep(1)
            return states

    last = asyncio.run(leave())[-1]
    assert (last["running"], last["searching"]) == (0, 0)
