"""Starting from given steps, log-probabilities, temperature 0, and the cost in full."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from stepback_client import Client, InvalidRequest
from stepback_core.manifest import weights_digest
from stepback_core.schemas import SolveResult
from stepback_core.tasks import TASKS, CountdownProblem
from stepback_server.engine.cpu_dtype import cpu_dtype
from tests.conftest import CHECKPOINT, held_out

PROBLEM = {"numbers": [4, 16, 25, 82], "target": 95}
FIRST, SECOND = "16-4=12", "25-12=13"


@pytest.fixture(scope="module")
def client(server: str) -> Iterator[Client]:
    with Client(server) as client:
        yield client


@cache
def model() -> Any:
    loader: Any = AutoModelForCausalLM
    return loader.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()


def assert_rescored(prompt: list[int], written: list[int], found: list[float]) -> None:
    """Hold the log-probability of each written id against that of transformers in float32, and so
    their mean.

    A server on a processor that is fast in bfloat16 rounds each logit to eight bits.
    """
    with torch.inference_mode():
        logits = model()(torch.tensor([prompt + written])).logits[0, len(prompt) - 1 : -1]
    truth = logits.log_softmax(-1).gather(-1, torch.tensor(written).unsqueeze(-1)).squeeze(-1)
    is_rounded = cpu_dtype("auto") == "bfloat16"
    rounding = torch.finfo(torch.bfloat16).eps * logits.abs().amax(-1) if is_rounded else 0.0
    off = (torch.tensor(found) - truth).abs()
    assert (off < 0.01 + rounding).all(), (found, truth.tolist())
    assert sum(found) / len(found) == pytest.approx(truth.mean().item(), abs=0.01)


def assert_scored(result: SolveResult) -> None:
    """The answer's log-probabilities, and the score that is their mean."""
    prompt, answer, tree = result.prompt_token_ids, result.answer, result.tree
    assert prompt and answer and answer.token_ids and answer.logprobs and tree
    assert_rescored(prompt, answer.token_ids, answer.logprobs)
    assert answer.score == pytest.approx(sum(answer.logprobs) / len(answer.logprobs))


@pytest.mark.parametrize("strategy", ["best_first", "greedy", "best_of_n", "self_backtracking"])
@pytest.mark.parametrize("steps", [[], [FIRST]])
def test_log_probabilities_are_those_of_transformers(
    client: Client, strategy: str, steps: list[str]
) -> None:
    result = client.solve(
        PROBLEM, strategy=strategy, steps=steps, breadth=4, logprobs=True, tree=True, seed=1
    )
    assert_scored(result)
    assert result.answer and result.answer.steps[: len(steps)] == steps


def test_a_tree_can_be_rescored_from_its_root(client: Client) -> None:
    """Each node's ids continue what its ancestors kept; all of it is scored by one pass a node."""
    result = client.solve(
        held_out(1)[0],
        strategy="self_backtracking",
        select="perplexity",
        breadth=4,
        temperature=1.3,
        logprobs=True,
        tree=True,
        seed=2,
    )
    texts = whole_texts(result)
    assert result.prompt_token_ids and len(texts) >= 4
    for ids, logprobs in texts:
        assert_rescored(result.prompt_token_ids, ids, logprobs)


def whole_texts(result: SolveResult) -> list[tuple[list[int], list[float]]]:
    """The ids and log-probabilities of every branch since the prompt, put together from nodes."""
    whole: dict[int, tuple[list[int], list[float]]] = {0: ([], [])}
    for node in (result.tree or [])[1:]:
        assert node.parent is not None and node.kept_tokens is not None
        assert node.token_ids is not None and node.logprobs is not None
        ids, logprobs = whole[node.parent]
        kept = node.kept_tokens
        whole[node.id] = (ids[:kept] + node.token_ids, logprobs[:kept] + node.logprobs)
    return list(whole.values())[1:]


def test_without_asking_there_are_no_token_ids(client: Client) -> None:
    result = client.solve(PROBLEM, tree=True)
    assert result.prompt_token_ids is None and result.answer and result.tree
    assert result.answer.token_ids is None and result.tree[1].logprobs is None


@pytest.mark.parametrize(
    "strategy", ["best_first", "greedy", "best_of_n", "majority", "self_backtracking"]
)
def test_a_search_starts_from_given_steps(client: Client, strategy: str) -> None:
    result = client.solve(
        PROBLEM, strategy=strategy, steps=[FIRST, SECOND], breadth=4, tree=True, seed=3
    )
    assert result.status == "solved" and result.answer and result.tree
    assert result.answer.steps == [FIRST, SECOND, "82+13=95"]
    root, *branches = result.tree
    assert root.steps == [FIRST, SECOND]
    assert all(branch.kept_steps >= 2 for branch in branches)
    bare = client.solve(PROBLEM, strategy="greedy", seed=3)
    assert result.usage.prompt_tokens > bare.usage.prompt_tokens
    assert 0 < result.usage.generated_tokens - result.usage.discarded_tokens < 12


def test_given_steps_stand_before_a_prompts_answer_too(client: Client) -> None:
    prompt = TASKS["countdown"].prompt(CountdownProblem.model_validate(PROBLEM))
    result = client.solve(None, prompt=prompt, steps=[FIRST], strategy="best_of_n", seed=1)
    assert result.answer and result.answer.steps[0] == FIRST
    assert result.answer.text.startswith(FIRST)


def test_events_number_steps_after_the_given_ones(client: Client) -> None:
    with client.stream(PROBLEM, steps=[FIRST], strategy="greedy") as events:
        steps = [event for event in events if event.type == "step"]
    assert [event.index for event in steps] == [1, 2]
    assert all(event.p_marker is not None and event.p_marker < 0.5 for event in steps)


@pytest.mark.parametrize(
    ("steps", "field", "code"),
    [
        (["16-4=13"], "steps.0", "illegal_step"),
        ([FIRST, "16-4=12"], "steps.1", "illegal_step"),
        ([FIRST, "25-12=13\n82+13=95"], "steps.1", "reserved_text"),
        (["16-4=12<end>"], "steps.0", "reserved_text"),
        (["16\u00d74=64"], "steps.0", "unknown_character"),
    ],
)
def test_steps_that_cannot_be_are_refused_by_name(
    client: Client, steps: list[str], field: str, code: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        client.solve(PROBLEM, steps=steps)
    assert (refused.value.param, refused.value.code) == (field, code)


def test_steps_that_leave_no_room_are_refused(client: Client) -> None:
    with pytest.raises(InvalidRequest) as refused:
        client.solve(None, prompt="4 16 25 82=95", steps=["1+1=2"] * 200)
    assert refused.value.code == "steps_too_long"


@pytest.mark.parametrize(
    ("prompt", "told"),
    [
        ("4\u00d716=64", "'\u00d7' (U+00D7, MULTIPLICATION SIGN), character 2"),
        ("4 16\t25=95", "'\\t' (U+0009), character 5"),
        ("\U0001f600", "(U+1F600, GRINNING FACE), character 1"),
        ("cafe\u0301", "'\u0301' (U+0301, COMBINING ACUTE ACCENT), character 5"),
    ],
)
def test_an_unknown_character_is_named_with_its_place(
    client: Client, prompt: str, told: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        client.solve(None, prompt=prompt)
    assert refused.value.code == "unknown_character"
    assert told in str(refused.value)


def test_temperature_0_is_greedy(client: Client) -> None:
    greedy = client.solve(PROBLEM, strategy="greedy", select="perplexity")
    for strategy in ("best_of_n", "majority"):
        cold = client.solve(PROBLEM, strategy=strategy, temperature=0, breadth=8)
        assert cold.answer and greedy.answer and cold.answer.steps == greedy.answer.steps
        assert cold.usage.engine_requests == 1


def test_a_cold_beam_has_distinct_texts(client: Client) -> None:
    result = client.solve(
        PROBLEM,
        strategy="best_of_n",
        sampling="beam",
        temperature=0,
        breadth=8,
        select="perplexity",
        logprobs=True,
        tree=True,
    )
    texts = {tuple(ids) for ids, _ in whole_texts(result)}
    assert len(texts) == len((result.tree or [])[1:]) == 8


def test_a_problem_unlike_those_of_the_training_is_warned_of(client: Client) -> None:
    served = client.models().data[0]
    assert served.trained_for["countdown"] == {"numbers": (4, 4)}
    assert served.parameters == 9_737_920
    result = client.solve({"numbers": [3, 5, 7], "target": 26}, strategy="greedy")
    assert result.warning is not None
    assert "numbers has 3 entries" in result.warning and "with 4" in result.warning
    assert client.solve(PROBLEM, strategy="greedy").warning is None


def test_every_result_names_the_weights_and_the_full_cost(client: Client) -> None:
    result = client.solve(
        PROBLEM, strategy="best_of_n", select="perplexity", breadth=4, widening=False
    )
    usage = result.usage
    assert result.digest == weights_digest(CHECKPOINT) == client.models().data[0].digest
    prompts = usage.engine_requests * usage.prompt_tokens
    assert usage.prefilled_tokens == prompts - usage.cached_tokens
    assert usage.forwarded_tokens == usage.prefilled_tokens + usage.generated_tokens
