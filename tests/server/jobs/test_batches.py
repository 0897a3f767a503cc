"""Files and batches over HTTP: lines, errors, counts, cancel, expiry, pages."""

import json
from typing import Any

import httpx
import pytest

from tests.server.jobs.conftest import BODY, Controllers, batch_in, begin, lines_of, upload


def line(id: str, body: Any = BODY, **fields: Any) -> str:
    return json.dumps({"custom_id": id, "method": "POST", "url": "/solve", "body": body} | fields)


def test_every_line_is_answered_once_and_refusals_are_in_the_error_file(
    jobs_server: httpx.Client,
) -> None:
    lines = [line(f"r{number}") for number in range(30)]
    lines[7] = line("r7", {"task": "chess", "problem": {}})
    lines[8] = line("r8", BODY | {"breadth": 0})
    file = upload(jobs_server, *lines)
    begun = begin(jobs_server, file, metadata={"mine": "yes"})
    assert begun["status"] == "validating" and begun["metadata"] == {"mine": "yes"}
    batch = batch_in(jobs_server, begun["id"], "completed", "failed")
    assert batch["request_counts"] == {"total": 30, "completed": 28, "failed": 2}
    output = [json.loads(each) for each in lines_of(jobs_server, batch["output_file_id"])]
    expected = [f"r{number}" for number in range(30) if number not in (7, 8)]
    assert [each["custom_id"] for each in output] == expected
    assert all(each["response"]["body"]["status"] == "solved" for each in output)
    assert all(each["error"] is None for each in output)
    errors = [json.loads(each) for each in lines_of(jobs_server, batch["error_file_id"])]
    assert [each["response"]["status_code"] for each in errors] == [404, 422]
    spent = sum(each["response"]["body"]["usage"]["generated_tokens"] for each in output)
    assert batch["usage"]["output_tokens"] == spent
    assert batch["usage"]["total_tokens"] == spent + batch["usage"]["input_tokens"]


def test_lines_of_openais_routes_are_answered_and_refused_as_these_do(
    jobs_server: httpx.Client,
) -> None:
    problem = "countdown:3,5=15"
    message = {"role": "user", "content": problem}
    given = {
        "/v1/chat/completions": ({"messages": [message]}, {"messages": [message], "n": 0}),
        "/v1/completions": ({"prompt": [problem, problem]}, {"prompt": problem, "logprobs": 1}),
    }
    for path, (good, bad) in given.items():
        lines = (line("good", good | {"stream": True}, url=path), line("bad", bad, url=path))
        begun = begin(jobs_server, upload(jobs_server, *lines), endpoint=path)
        batch = batch_in(jobs_server, begun["id"], "completed", "failed")
        [output] = [json.loads(each) for each in lines_of(jobs_server, batch["output_file_id"])]
        at_once = jobs_server.post(path, json=good).json()
        body = output["response"]["body"]
        assert body.keys() == at_once.keys() and body["object"] == at_once["object"]
        assert [texts(each) for each in body["choices"]] == [
            texts(each) for each in at_once["choices"]
        ]
        assert batch["usage"]["output_tokens"] == body["usage"]["completion_tokens"]
        [error] = [json.loads(each) for each in lines_of(jobs_server, batch["error_file_id"])]
        refused = jobs_server.post(path, json=bad)
        assert error["response"]["status_code"] == refused.status_code == 400
        assert error["response"]["body"] == refused.json()


def texts(choice: dict[str, Any]) -> str:
    return str(choice["text"] if "text" in choice else choice["message"]["content"])


@pytest.mark.parametrize(
    ("lines", "code", "number"),
    [
        ([], "empty_file", None),
        ([line("a"), "{"], "invalid_json_line", 2),
        ([line("a"), line("a")], "duplicate_custom_id", 2),
        ([line("a", url="/other")], "mismatched_endpoint", 1),
        ([line("a", method="GET")], "invalid_request", 1),
        ([line("a", BODY | {"model": "x" * (1 << 20)})], "line_too_long", 1),
    ],
)
def test_a_faulty_file_fails_its_batch_and_names_the_line(
    jobs_server: httpx.Client, lines: list[str], code: str, number: int | None
) -> None:
    begun = begin(jobs_server, upload(jobs_server, *lines))
    batch = batch_in(jobs_server, begun["id"], "failed", "completed")
    [error] = batch["errors"]["data"]
    assert (error["code"], error["line"]) == (code, number)
    assert batch["request_counts"]["total"] == 0 and batch["failed_at"]


def test_what_cannot_be_a_batch_is_refused(jobs_server: httpx.Client) -> None:
    file = upload(jobs_server, line("a"))
    for fields, code in (
        ({"input_file_id": "file-none"}, "unknown_id"),
        ({"endpoint": "/health"}, "unknown_value"),
        ({"completion_window": "soon"}, "invalid_value"),
        ({"metadata": {"a": 1}}, "wrong_type"),
        ({"other": 1}, "extra_field"),
    ):
        body = {"input_file_id": file, "endpoint": "/solve"} | fields
        answer = jobs_server.post("/v1/batches", json=body)
        assert answer.json()["error"]["code"] == code, answer.text
    wrong = jobs_server.post("/v1/files", files={"file": b"x"}, data={"purpose": "vision"})
    assert wrong.json()["error"]["param"] == "purpose"
    missing = jobs_server.post("/v1/files", data={"purpose": "batch"})
    assert missing.json()["error"]["code"] == "missing_field"


def test_a_cancelled_batch_keeps_its_answers_and_names_what_has_none(
    controllers: Controllers,
) -> None:
    _, url = controllers.start(batch_searches=2)
    with httpx.Client(base_url=url, timeout=300) as client:
        begun = begin(client, upload(client, *(line(f"r{n}") for n in range(2000))))
        batch_in(client, begun["id"], "in_progress")
        answer = client.post(f"/v1/batches/{begun['id']}/cancel").json()
        assert answer["status"] in {"cancelling", "cancelled"} and answer["cancelling_at"]
        batch = batch_in(client, begun["id"], "cancelled")
        done, left = (lines_of(client, batch[f"{kind}_file_id"]) for kind in ("output", "error"))
        assert len(done) + len(left) == 2000 and len(left) > 0
        assert batch["request_counts"] == {"total": 2000, "completed": len(done), "failed": 0}
        assert {json.loads(each)["error"]["code"] for each in left} == {"batch_cancelled"}
        again = client.post(f"/v1/batches/{begun['id']}/cancel").json()
        assert again["status"] == "cancelled"


def test_a_batch_that_is_not_done_in_time_expires(controllers: Controllers) -> None:
    _, url = controllers.start(batch_searches=1)
    with httpx.Client(base_url=url, timeout=300) as client:
        file = upload(client, *(line(f"r{n}") for n in range(2000)))
        begun = begin(client, file, completion_window="2s")
        batch = batch_in(client, begun["id"], "expired")
        left = [json.loads(each) for each in lines_of(client, batch["error_file_id"])]
        assert {each["error"]["code"] for each in left} == {"batch_expired"}
        counts = batch["request_counts"]
        assert counts["completed"] + len(left) == counts["total"] == 2000


def test_files_are_listed_read_and_deleted(jobs_server: httpx.Client) -> None:
    content = line("a") + "\n"
    ids = [upload(jobs_server, content) for _ in range(3)]
    listed = jobs_server.get("/v1/files", params={"limit": 3, "purpose": "batch"}).json()
    assert [each["id"] for each in listed["data"]] == ids[::-1]
    file = jobs_server.get(f"/v1/files/{ids[0]}").json()
    assert file["bytes"] == len(content) and file["filename"] == "in.jsonl"
    assert jobs_server.get(f"/v1/files/{ids[0]}/content").text == content
    assert jobs_server.delete(f"/v1/files/{ids[0]}").json()["deleted"] is True
    for answer in (
        jobs_server.get(f"/v1/files/{ids[0]}"),
        jobs_server.get(f"/v1/files/{ids[0]}/content"),
        jobs_server.delete(f"/v1/files/{ids[0]}"),
    ):
        assert answer.status_code == 404


def test_a_large_file_comes_back_as_it_was(jobs_server: httpx.Client) -> None:
    content = "x" * 3_500_000
    file = upload(jobs_server, content)
    assert jobs_server.get(f"/v1/files/{file}/content").text == content
