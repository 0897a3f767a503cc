"""Searches in the background: asked for, followed, resumed, listed, cancelled, kept apart."""

import json
from pathlib import Path
from typing import Any

import httpx

from stepback_server.gateway.keys import new_key
from tests import warm
from tests.server.jobs.conftest import BODY, Controllers, wait_for


def ask(client: httpx.Client, **fields: Any) -> dict[str, Any]:
    answer = client.post("/solve", json=BODY | {"background": True} | fields)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def ended(client: httpx.Client, id: str) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        job = client.get(f"/v1/searches/{id}").json()
        return job if job["ended_at"] else None

    return dict(wait_for(found))


def events(client: httpx.Client, id: str, **sent: Any) -> list[tuple[int, dict[str, Any]]]:
    text = client.get(f"/v1/searches/{id}/events", **sent).text
    numbers = [int(line[4:]) for line in text.splitlines() if line.startswith("id: ")]
    data = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    return list(zip(numbers, data, strict=True))


def test_a_search_in_the_background_gives_the_result_that_it_gives_at_once(
    jobs_server: httpx.Client,
) -> None:
    job = ask(jobs_server)
    assert job["status"] in {"queued", "running"} and job["result"] is None
    done = ended(jobs_server, job["id"])
    assert done["status"] == "completed" and done["attempts"] == 1
    at_once = jobs_server.post("/solve", json=BODY).json()
    for field in ("status", "answer", "strategy", "stop_reason"):
        assert done["result"][field] == at_once[field]


def test_events_are_followed_to_the_result_and_resumed_from_any_number(
    jobs_server: httpx.Client,
) -> None:
    id = ask(jobs_server)["id"]
    followed = events(jobs_server, id)
    assert [number for number, _ in followed] == list(range(1, len(followed) + 1))
    kinds = [event["type"] for _, event in followed]
    assert kinds[0] == "started" and kinds[-1] == "result" and "candidate" in kinds
    for number in range(len(followed)):
        assert events(jobs_server, id, params={"after": number}) == followed[number:]
    resumed = events(jobs_server, id, headers={"Last-Event-ID": "2"})
    assert resumed == followed[2:]
    refused = jobs_server.get(f"/v1/searches/{id}/events", headers={"Last-Event-ID": "x"})
    assert refused.json()["error"]["code"] == "wrong_type"


def test_what_could_never_be_searched_for_is_refused_at_once(jobs_server: httpx.Client) -> None:
    body = BODY | {"background": True}
    refused = jobs_server.post("/solve", json=body | {"task": "chess"})
    assert refused.status_code == 404
    both = jobs_server.post("/solve", json=body | {"stream": True})
    assert both.json()["error"]["param"] == "background"


def test_a_repeated_idempotency_key_finds_the_same_search(jobs_server: httpx.Client) -> None:
    headers, body = {"Idempotency-Key": "once"}, BODY | {"background": True}
    first, again = (jobs_server.post("/solve", json=body, headers=headers) for _ in range(2))
    assert first.json()["id"] == again.json()["id"]
    other = jobs_server.post("/solve", json=body | {"seed": 1}, headers=headers)
    assert other.json()["error"]["code"] == "idempotency_mismatch"


def test_the_list_comes_in_pages_the_newest_first(jobs_server: httpx.Client) -> None:
    asked = [ask(jobs_server)["id"] for _ in range(5)]
    first = jobs_server.get("/v1/searches", params={"limit": 3}).json()
    second = jobs_server.get("/v1/searches", params={"limit": 2, "after": first["last_id"]}).json()
    found = [each["id"] for page in (first, second) for each in page["data"]]
    assert found == asked[::-1] and first["has_more"]
    refused = jobs_server.get("/v1/searches", params={"after": "nothing"})
    assert refused.json()["error"]["code"] == "unknown_id"


def test_a_cancelled_search_ends_without_a_result(controllers: Controllers) -> None:
    _, url = controllers.start(max_searches=1)
    with httpx.Client(base_url=url, timeout=300) as client:
        ids = [ask(client)["id"] for _ in range(40)]
        last = ids[-1]
        client.post(f"/v1/searches/{last}/cancel")
        assert ended(client, last)["status"] == "cancelled"
        assert events(client, last)[-1][1] == {"type": "cancelled"}
        running = next(i for i in ids if client.get(f"/v1/searches/{i}").json()["started_at"])
        done = client.post(f"/v1/searches/{running}/cancel").json()
        assert done["status"] in {"running", "completed", "cancelled"}
        assert ended(client, running)["status"] in {"completed", "cancelled"}


def test_the_jobs_of_another_key_do_not_exist(controllers: Controllers, tmp_path: Path) -> None:
    keys = {name: new_key(name) for name in ("one", "two")}
    file = tmp_path / "keys.toml"
    file.write_text("\n".join(line for _, line in keys.values()))
    _, url = controllers.start(keys_file=file)
    one, two = (
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=300)
        for key, _ in keys.values()
    )
    with one, two:
        id = ask(one)["id"]
        for answer in (
            two.get(f"/v1/searches/{id}"),
            two.get(f"/v1/searches/{id}/events"),
            two.post(f"/v1/searches/{id}/cancel"),
            two.get("/v1/searches", params={"after": id}),
        ):
            assert answer.status_code == 404
            assert answer.json()["error"]["code"] == "unknown_id"
        assert two.get("/v1/searches").json()["data"] == []
        assert ended(one, id)["status"] == "completed"


def test_a_server_without_jobs_never_loads_their_database(controllers: Controllers) -> None:
    process, url = controllers.start(start=warm.cold)
    assert httpx.post(f"{url}/solve", json=BODY, timeout=300).status_code == 200
    loaded = Path(f"/proc/{process.pid}/maps").read_text()
    assert "sqlalchemy" not in loaded and "_sqlite3" not in loaded
    assert not (controllers.folder / "jobs.db").exists()
