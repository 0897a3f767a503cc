"""OpenAI's own SDK: files, batches, cancel, unmodified."""

import json
import time
from collections.abc import Iterator

import openai
import pytest
from conftest import LINE, MODEL, PATIENCE, SOLVED
from openai import OpenAI
from openai.types import Batch

PATHS = {
    "/v1/chat/completions": {"model": MODEL, "messages": [{"role": "user", "content": LINE}]},
    "/v1/completions": {"model": MODEL, "prompt": LINE},
    "/solve": {"task": "countdown", "problem": {"numbers": [4, 16, 25, 82], "target": 95}},
}


@pytest.fixture(scope="module")
def client(base_url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=base_url, api_key="none", timeout=PATIENCE) as client:
        yield client


def upload(client: OpenAI, path: str, count: int) -> str:
    lines = (
        {"custom_id": f"r{number}", "method": "POST", "url": path, "body": PATHS[path]}
        for number in range(count)
    )
    content = "\n".join(map(json.dumps, lines)).encode()
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    assert (file.object, file.purpose, file.bytes) == ("file", "batch", len(content))
    assert client.files.content(file.id).content == content
    return file.id


def ended(client: OpenAI, id: str) -> Batch:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        batch = client.batches.retrieve(id)
        if batch.status in {"completed", "failed", "expired", "cancelled"}:
            return batch
        time.sleep(0.5)
    raise AssertionError(f"{id} does not end")


@pytest.mark.parametrize("path", PATHS)
def test_a_batch_answers_every_line_of_its_file(client: OpenAI, path: str) -> None:
    # The SDK's type names OpenAI's own paths alone; it sends any.
    begun = client.batches.create(
        input_file_id=upload(client, path, 3),
        endpoint=path,  # pyright: ignore[reportArgumentType]
        completion_window="24h",
        metadata={"mine": "yes"},
    )
    assert (begun.object, begun.endpoint, begun.metadata) == ("batch", path, {"mine": "yes"})
    batch = ended(client, begun.id)
    assert batch.status == "completed" and batch.model == MODEL
    assert batch.request_counts and batch.request_counts.completed == 3
    assert batch.usage and batch.usage.total_tokens > batch.usage.input_tokens > 0
    assert batch.output_file_id and batch.error_file_id is None
    lines = client.files.content(batch.output_file_id).text.splitlines()
    assert [json.loads(each)["custom_id"] for each in lines] == ["r0", "r1", "r2"]
    assert all(SOLVED in json.dumps(json.loads(each)).replace("\\n", "\n") for each in lines)
    assert begun.id in [each.id for each in client.batches.list(limit=5)]
    assert client.files.delete(batch.input_file_id).deleted


def test_a_batch_is_cancelled_with_what_is_in_flight(client: OpenAI) -> None:
    path = "/v1/chat/completions"
    begun = client.batches.create(
        input_file_id=upload(client, path, 500), endpoint=path, completion_window="24h"
    )
    assert client.batches.cancel(begun.id).status in {"cancelling", "cancelled"}
    batch = ended(client, begun.id)
    assert batch.status == "cancelled" and batch.cancelled_at
    files = (batch.output_file_id, batch.error_file_id)
    lines = [len(client.files.content(id).text.splitlines()) for id in files if id]
    assert sum(lines) in {0, 500}


def test_a_faulty_file_says_which_line(client: OpenAI) -> None:
    file = client.files.create(file=("in.jsonl", b"{"), purpose="batch")
    begun = client.batches.create(
        input_file_id=file.id, endpoint="/v1/completions", completion_window="24h"
    )
    batch = ended(client, begun.id)
    assert batch.status == "failed" and batch.errors and batch.errors.data
    assert (batch.errors.data[0].code, batch.errors.data[0].line) == ("invalid_json_line", 1)
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_none")
