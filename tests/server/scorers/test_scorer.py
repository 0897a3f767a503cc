"""One scorer over real HTTP: what it is sent, what is read, and all the ways in which it fails."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from stepback_core.errors import InvalidInput
from stepback_server.scorers.breaker import Breaker
from stepback_server.scorers.config import headers_of, read_entries
from stepback_server.scorers.messages import Candidate, Opinion, Question
from stepback_server.scorers.named import Scorers
from stepback_server.scorers.scorer import Report, Scorer
from tests.conftest import free_port
from tests.server.scorers.service import Reply, judged, serving

QUESTION = Question("3+4?", "sums", {"numbers": [3, 4]})
CANDIDATES = [
    Candidate("0", "3+4=7", ["3+4=7"], True),
    Candidate("1", "3+4=8", ["3+4=8"], True),
    Candidate("2", "3", ["3"], False),
]


def nobody(name: str, outcome: str, seconds: float) -> None:
    """Take no note."""


def scorer(
    folder: Path,
    url: str,
    more: str = "",
    environment: dict[str, str] | None = None,
    report: Report = nobody,
) -> Scorer:
    path = folder / "scorers.toml"
    path.write_text(f'[mine]\nurl = "{url}"\n{more}')
    return Scorers.read(path, environment or {}, report).find("mine")


def ask(asked: Scorer, times: int = 1) -> list[dict[str, Opinion]]:
    async def run() -> list[dict[str, Opinion]]:
        try:
            return [await asked.score(QUESTION, CANDIDATES) for _ in range(times)]
        finally:
            await asked.close()

    return asyncio.run(run())


def outcomes(folder: Path, reply: Reply, more: str = "", times: int = 1) -> list[str]:
    """Outcomes of calls, after a check that none gave an opinion."""
    seen: list[str] = []
    with serving(reply) as service:
        made = scorer(folder, service.url, more, report=lambda *call: seen.append(call[1]))
        assert not any(ask(made, times))
    return seen


def test_it_is_sent_the_problem_and_every_candidate(tmp_path: Path) -> None:
    with serving(judged(lambda each: 0.5 if each["final"] else 0.25, ok=True)) as service:
        [opinions] = ask(scorer(tmp_path, service.url))
    [body] = service.bodies
    assert body == {
        "task": "sums",
        "problem": {"numbers": [3, 4]},
        "prompt": "3+4?",
        "candidates": [
            {"id": "0", "text": "3+4=7", "steps": ["3+4=7"], "final": True},
            {"id": "1", "text": "3+4=8", "steps": ["3+4=8"], "final": True},
            {"id": "2", "text": "3", "steps": ["3"], "final": False},
        ],
    }
    assert opinions["0"] == opinions["1"] == Opinion(0.5, True)
    assert opinions["2"].score == 0.25


def test_what_is_too_much_for_one_call_is_split(tmp_path: Path) -> None:
    with serving(judged(lambda each: 1.0)) as service:
        [opinions] = ask(scorer(tmp_path, service.url, "batch = 2"))
    assert sorted(len(body["candidates"]) for body in service.bodies) == [1, 2]
    assert set(opinions) == {"0", "1", "2"}


def test_the_operators_token_and_headers_go_along(tmp_path: Path) -> None:
    more = 'token_env = "MINE"\nheaders = {X-Team = "a"}\nheaders_env = {X-Key = "KEY"}'
    with serving(judged(lambda each: 1.0)) as service:
        ask(scorer(tmp_path, service.url, more, {"MINE": "secret\n", "KEY": "also"}))
    [headers] = service.headers
    assert headers["authorization"] == "Bearer secret"
    assert (headers["x-team"], headers["x-key"]) == ("a", "also")


def test_a_threshold_judges_where_the_scorer_does_not(tmp_path: Path) -> None:
    with serving(judged(lambda each: 0.9 if each["id"] == "0" else 0.1)) as service:
        [opinions] = ask(scorer(tmp_path, service.url, "accept = 0.5"))
    assert [opinions[name].ok for name in "012"] == [True, False, False]


@pytest.mark.parametrize(
    "body",
    [
        b"no JSON",
        b"[]",
        b'{"verdicts": [{"id": "0"}]}',
        b'{"verdicts": [{"id": "0", "score": 1.5}]}',
        b'{"verdicts": [{"id": "0", "score": -0.1}]}',
        b'{"verdicts": [{"id": "0", "score": NaN}]}',
        b'{"verdicts": [{"id": "0", "score": "1"}]}',
        b'{"verdicts": [{"id": "0", "score": true}]}',
        b'{"verdicts": [{"id": 0, "score": 1}]}',
        b'{"verdicts": [{"id": "0", "score": 1, "ok": "yes"}]}',
        b'{"verdicts": [{"id": "0", "score": 1}, {"id": "0", "score": 0}]}',
    ],
)
def test_an_answer_of_another_form_is_no_opinion(tmp_path: Path, body: bytes) -> None:
    assert outcomes(tmp_path, lambda asked: Response(body)) == ["malformed"]


def test_candidates_that_it_leaves_out_have_no_opinion(tmp_path: Path) -> None:
    verdicts = [{"id": "1", "score": 1}, {"id": "x", "score": 1}]
    with serving(lambda body: {"verdicts": verdicts}) as service:
        [opinions] = ask(scorer(tmp_path, service.url))
    assert opinions["1"] == Opinion(1.0) and "0" not in opinions


def test_a_slow_one_has_failed_after_its_timeout(tmp_path: Path) -> None:
    async def sleep() -> Response:
        await asyncio.sleep(3600)
        return PlainTextResponse("")

    assert outcomes(tmp_path, lambda body: sleep(), "timeout = 0.3") == ["timeout"]


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_a_refusal_is_no_opinion(tmp_path: Path, status: int) -> None:
    assert outcomes(tmp_path, lambda body: PlainTextResponse("no", status)) == ["refused"]


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    with serving(judged(lambda each: 1.0)) as elsewhere:
        assert outcomes(tmp_path, lambda body: RedirectResponse(elsewhere.url)) == ["refused"]
        assert not elsewhere.bodies


def test_one_that_is_not_there_is_no_opinion(tmp_path: Path) -> None:
    seen: list[str] = []
    address = f"http://127.0.0.1:{free_port()}/score"
    made = scorer(tmp_path, address, report=lambda name, outcome, _: seen.append(outcome))
    assert ask(made) == [{}]
    assert seen == ["unreachable"]


def test_after_failures_in_a_row_it_is_left_alone(tmp_path: Path) -> None:
    with_pauses = outcomes(
        tmp_path, lambda body: PlainTextResponse("no", 500), "failures = 2\npause = 3600", times=5
    )
    assert with_pauses == ["refused", "refused", "paused", "paused", "paused"]


def test_a_breaker_lets_one_trial_through_a_pause() -> None:
    now = 0.0
    breaker = Breaker(2, 10.0, lambda: now)
    for _ in range(2):
        assert breaker.permits()
        breaker.failed()
    assert not breaker.permits()
    now = 10.0
    assert [breaker.permits(), breaker.permits()] == [True, False]
    now = 20.0
    assert breaker.permits()
    breaker.succeeded()
    assert breaker.permits() and breaker.permits() and not breaker.is_open


def test_a_reason_is_one_short_line(tmp_path: Path) -> None:
    with serving(judged(lambda each: 0.0, ok=False, reason="a\nb\x1b" + "c" * 999)) as service:
        [opinions] = ask(scorer(tmp_path, service.url))
    assert opinions["0"].reason == "a b " + "c" * 196


def vllm_score(body: dict[str, Any]) -> dict[str, Any]:
    """As vLLM documents its `/score`, here in another order."""
    data = [
        {"index": place, "object": "score", "score": 0.9 if text.endswith("7") else 0.2}
        for place, text in enumerate(body["text_2"])
    ]
    usage = {"prompt_tokens": 9, "total_tokens": 9}
    return {"id": "s", "object": "list", "created": 1, "model": body["model"]} | {
        "data": data[::-1],
        "usage": usage,
    }


def test_a_cross_encoder_on_vllm(tmp_path: Path) -> None:
    more = 'kind = "vllm-score"\nmodel = "rater"'
    with serving(vllm_score) as service:
        [opinions] = ask(scorer(tmp_path, service.url, more))
    assert service.bodies == [
        {"model": "rater", "text_1": "3+4?", "text_2": ["3+4=7", "3+4=8", "3"]}
    ]
    assert opinions == {"0": Opinion(0.9), "1": Opinion(0.2), "2": Opinion(0.2)}


def vllm_classify(body: dict[str, Any]) -> dict[str, Any]:
    """As vLLM documents its `/classify`."""
    data = [
        {"index": place, "label": "LABEL_1", "num_classes": 2}
        | {"probs": [0.1, 0.9] if text.endswith("7") else [0.6, 0.4]}
        for place, text in enumerate(body["input"])
    ]
    return {"id": "c", "object": "list", "created": 1, "model": body["model"], "data": data}


@pytest.mark.parametrize(("label", "score"), [("", 0.9), ("label = 0", 0.1)])
def test_a_reward_model_on_vllm(tmp_path: Path, label: str, score: float) -> None:
    more = (
        f'kind = "vllm-classify"\nmodel = "prm"\ntemplate = "Q: {{prompt}} A: {{answer}}"\n{label}'
    )
    with serving(vllm_classify, "/classify") as service:
        [opinions] = ask(scorer(tmp_path, service.url, more))
    assert service.bodies[0]["input"][0] == "Q: 3+4? A: 3+4=7"
    assert opinions["0"] == Opinion(score)


def test_a_class_that_there_is_not_is_no_opinion(tmp_path: Path) -> None:
    more = 'kind = "vllm-classify"\nmodel = "prm"\nlabel = 2'
    assert outcomes(tmp_path, vllm_classify, more) == ["malformed"]


def chat(content: str | None) -> Reply:
    return lambda body: {"choices": [{"message": {"role": "assistant", "content": content}}]}


@pytest.mark.parametrize(
    "reply",
    [
        '{"score": 0.75, "reason": "close"}',
        'Let me see. {"score": 0.1}? No:\n```json\n{"score": 0.75, "reason": "close"}\n```',
        '{"score": 0.75, "reason": "close", "of": {"parts": {"a": 1}}}',
    ],
)
def test_a_judge_grades_each_candidate_at_temperature_0(tmp_path: Path, reply: str) -> None:
    more = 'kind = "judge"\nmodel = "big"\naccept = 0.7'
    with serving(chat(reply)) as service:
        [opinions] = ask(scorer(tmp_path, service.url, more))
    assert opinions["1"] == Opinion(0.75, True, "close")
    assert [body["temperature"] for body in service.bodies] == [0, 0, 0]
    graded = [json.loads(body["messages"][1]["content"]) for body in service.bodies]
    assert {"problem": "3+4?", "answer": "3+4=7"} in graded
    assert {"problem": "3+4?", "answer": "3", "unfinished": True} in graded


@pytest.mark.parametrize("reply", ["it is right", None, '{"score": 7}', '{"grade": 1}', "{{{{"])
def test_a_judge_that_gives_no_grade_gives_no_opinion(tmp_path: Path, reply: str | None) -> None:
    more = 'kind = "judge"\nmodel = "big"'
    assert outcomes(tmp_path, chat(reply), more) == ["malformed"] * 3


URL = 'url = "http://127.0.0.1:1/score"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a", "it is not TOML"),
        ("a = 3", "a: write a table"),
        ("[a]", "a: url: Field required"),
        ('["a b"]\n' + URL, "entry 1: its name"),
        ('[a]\nurl = "ftp://x"', "a: url"),
        ('[a]\nurl = "http://user:hunter2@x/"', "a: url"),
        (f"[a]\n{URL}\nlabel = 1", "a: label: Extra"),
        (f"[a]\n{URL}\ntimeout = 0", "a: timeout"),
        (f"[a]\n{URL}\naccept = 2", "a: accept"),
        (f'[a]\n{URL}\nkind = "prm"', "a: kind: it is one of stepback, vllm-score"),
        (f'[a]\n{URL}\nkind = "judge"', "a: model: Field required"),
        (f'[a]\n{URL}\nkind = "judge"\nmodel = "m"\nbatch = 2', "a: batch"),
        (f'[a]\n{URL}\nkind = "vllm-classify"\nmodel = "m"\ntemplate = "x"', "a: template"),
        (f'[a]\n{URL}\ntoken_env = "UNSET"', "a: the environment has no UNSET"),
        (f'[a]\n{URL}\nheaders = {{"X y" = "1"}}', "a: headers"),
        (f'[a]\n{URL}\nheaders = {{Host = "h"}}', "a: headers"),
        (f'[a]\n{URL}\nheaders = {{X = "a\\nb"}}', "a: headers"),
        (f'[a]\n{URL}\ntoken_env = "NEWLINES"', "a: NEWLINES has what no header may have"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "scorers.toml"
    path.write_text(text)
    with pytest.raises(InvalidInput) as error:
        for name, entry in read_entries(path).items():
            headers_of(entry, {"NEWLINES": "hunter2\nX: y"}, f"{path}: {name}")
    assert message in str(error.value) and str(path) in str(error.value)
    assert "hunter2" not in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"none.toml: No such file"):
        read_entries(tmp_path / "none.toml")
