"""Whatever a caller sends: the error body, the field's name, and a server that goes on."""

import json
from typing import Any

import httpx
import pytest

from stepback_core.schemas import ErrorBody
from stepback_core.trace import Grammar

GOOD: dict[str, Any] = {
    "task": "countdown",
    "problem": {"numbers": [3, 5, 7, 25], "target": 41},
    "strategy": "greedy",
}


def change(**fields: Any) -> dict[str, Any]:
    return GOOD | fields


def problem(**fields: Any) -> dict[str, Any]:
    return GOOD | {"problem": GOOD["problem"] | fields}


FIELDS = [
    (404, "task", change(task="chess")),
    (404, "model", change(model="gpt-2")),
    (422, "task", change(task=7)),
    (422, "problem", {"task": "countdown"}),
    (422, "problem", change(problem=[1, 2])),
    (422, "problem", change(problem="3,5,7,25=41")),
    (422, "problem.target", change(problem={"numbers": [3, 5]})),
    (422, "problem.numbers", problem(numbers=[])),
    (422, "problem.numbers", problem(numbers=[1] * 1000)),
    (422, "problem.numbers.1", problem(numbers=[3, "5"])),
    (422, "problem.numbers.0", problem(numbers=[-3, 5])),
    (422, "problem.numbers.0", problem(numbers=[10**30, 5])),
    (422, "problem.numbers.0", problem(numbers=[[[3]], 5])),
    (422, "problem.target", problem(target=1.5)),
    (422, "problem.target", problem(target=None)),
    (422, "problem.hint", problem(hint="+")),
    (422, "surprise", change(surprise=1)),
    (422, "breadth", change(breadth=0)),
    (422, "breadth", change(breadth=16.5)),
    (422, "problem.numbers.0", change(problem={"numbers": [100, 3], "target": 103})),
    (422, "problem.target", change(problem={"numbers": [3, 5], "target": 952})),
    (422, "breadth", change(breadth=1_000_000)),
    (422, "breadth", change(breadth=1024)),
    (422, "breadth", change(breadth="16")),
    (422, "breadth", change(breadth=True)),
    (422, "backtracks", change(backtracks=-1)),
    (422, "backtracks", change(backtracks=63)),
    (422, "temperature", change(temperature=-0.5)),
    (422, "temperature", change(temperature=2.1)),
    (422, "seed", change(seed=-1)),
    (422, "seed", change(seed=2**40)),
    (422, "strategy", change(strategy="dfs")),
    (422, "select", change(select="best")),
    (422, "select", change(strategy="majority", select="verified")),
    (422, "budget", change(budget=7)),
    (422, "budget.tokens", change(budget={"tokens": -1})),
    (422, "budget.tokens", change(budget={"tokens": 9_999_999})),
    (422, "budget.seconds", change(budget={"seconds": 0})),
    (422, "budget.seconds", change(budget={"seconds": 3000})),
    (422, "budget.euros", change(budget={"euros": 1})),
    (422, "candidates", change(candidates=0)),
    (422, "tree", change(tree="yes")),
    (422, "prompt", {"prompt": ""}),
    (422, "prompt", {"prompt": f"1,2{Grammar().marker}"}),
    (422, "prompt", {"prompt": Grammar().end}),
    (422, "prompt", {"prompt": "<pad>1,2"}),
    (422, "prompt", {"prompt": "smile \N{SLIGHTLY SMILING FACE}"}),
    (422, "prompt", {"prompt": "1" * 5000}),
    (422, "prompt", change(prompt="both")),
    (422, "select", {"prompt": "1,2", "select": "verified"}),
    (422, None, ["a", "list"]),
    (422, None, "text"),
    (422, None, None),
]

RAW = [
    (422, b"", {}),
    (400, b"{", {}),
    (400, b"\xff\xfe\x00", {}),
    (400, b'{"task": "\xff"}', {}),
    (422, b"[" * 100_000, {}),
    (400, b"9" * 10_000, {}),
    (413, b" " * 10_000_000, {}),
    (415, b"abc", {"content-type": "text/plain"}),
    (415, b"{}", {"content-type": "application/x-www-form-urlencoded"}),
    (415, b"{}", {"content-type": ""}),
    (400, b'{"prompt": "\\ud800"}', {}),
    (400, b'{"\\udfff": 1}', {}),
    (400, b'{"prompt": "\xed\xa0\x80"}', {}),
    (400, b'{"prompt": "\x00"}', {}),
    (422, b'{"problem": ' + b"[" * 250 + b"]" * 250 + b"}", {}),
    (422, b'{"a":' * 100_000 + b"1" + b"}" * 100_000, {}),
]

NESTED = b'{"task": "countdown", "problem": %s}'
DEEP = [
    (422, "problem", NESTED % (b"[" * 60 + b"]" * 60)),
    (422, "problem.numbers", NESTED % (b'{"numbers":' * 60 + b"1" + b"}" * 60)),
    (422, "problem.numbers.0", NESTED % (b'{"target": 5, "numbers": [1e400]}')),
    (422, "problem.numbers.0", NESTED % (b'{"target": 5, "numbers": [' + b"9" * 4000 + b"]}")),
    (422, "problem.\0", NESTED % b'{"numbers": [1, 2], "target": 5, "\\u0000": 1}'),
]

NOT_FINITE = [
    ("temperature", "NaN"),
    ("temperature", "Infinity"),
    ("temperature", "1e999"),
    ("seed", "NaN"),
    ("breadth", "Infinity"),
]


def check(response: httpx.Response, status: int, param: str | None) -> None:
    assert response.status_code == status, response.text
    error = ErrorBody.model_validate_json(response.content).error
    assert error.param == param
    assert len(error.message) > 10
    assert "Traceback" not in response.text and ".py" not in response.text


@pytest.fixture(autouse=True)
def still_serving(server: str) -> Any:
    yield
    assert httpx.post(f"{server}/solve", json=GOOD, timeout=300).status_code == 200


@pytest.mark.parametrize(("status", "param", "body"), FIELDS)
def test_a_bad_field_is_named(server: str, status: int, param: str | None, body: Any) -> None:
    response = httpx.post(f"{server}/solve", json=body, timeout=300)
    check(response, status, param)


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("task", {}),
        ("problem", {"task": "countdown"}),
        ("problem.target", change(problem={"numbers": [3, 5]})),
    ],
)
def test_a_program_can_tell_that_a_field_is_missing(
    server: str, param: str, body: dict[str, Any]
) -> None:
    response = httpx.post(f"{server}/solve", json=body, timeout=300)
    check(response, 422, param)
    assert response.json()["error"]["code"] == "missing_field"


@pytest.mark.parametrize(("status", "content", "headers"), RAW)
def test_what_is_not_a_json_body_is_refused(
    server: str, status: int, content: bytes, headers: dict[str, str]
) -> None:
    sent = {"content-type": "application/json"} | headers
    response = httpx.post(f"{server}/solve", content=content, headers=sent, timeout=300)
    check(response, status, None)


@pytest.mark.parametrize(("status", "param", "content"), DEEP)
def test_what_is_json_but_absurd_is_refused_by_its_field(
    server: str, status: int, param: str, content: bytes
) -> None:
    response = httpx.post(
        f"{server}/solve",
        content=content,
        headers={"content-type": "application/json"},
        timeout=300,
    )
    check(response, status, param)


def test_the_head_of_a_request_is_bounded(server: str) -> None:
    with httpx.Client(timeout=300) as http:
        try:
            response = http.get(f"{server}/health", headers={"x-long": "a" * 10_000_000})
        except httpx.TransportError:
            return
        assert response.status_code == 400


def test_a_large_body_without_a_declared_length_is_refused(server: str) -> None:
    chunks = (b" " * 65536 for _ in range(160))
    response = httpx.post(f"{server}/solve", content=chunks, timeout=300)
    check(response, 413, None)


@pytest.mark.parametrize(("field", "literal"), NOT_FINITE)
def test_numbers_that_are_not_finite_are_refused(server: str, field: str, literal: str) -> None:
    text = json.dumps(change(**{field: "@"})).replace('"@"', literal)
    response = httpx.post(
        f"{server}/solve", content=text, headers={"content-type": "application/json"}, timeout=300
    )
    check(response, 422, field)


def test_unknown_paths_and_methods_have_the_body_too(server: str) -> None:
    check(httpx.get(f"{server}/nowhere", timeout=300), 404, None)
    check(httpx.get(f"{server}/solve", timeout=300), 405, None)
    check(httpx.post(f"{server}/solve/", timeout=300), 404, None)
