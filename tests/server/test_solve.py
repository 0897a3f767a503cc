"""`POST /solve` on the bundled checkpoint, with the real vLLM behind it."""

import asyncio
import json
import math
import time
from collections.abc import Iterator
from math import isqrt
from typing import Any, Literal

import httpx
import pytest

from stepback_client import AsyncClient, Client, CountdownProblem, SolveResult, TreeNode
from stepback_core.manifest import Manifest
from stepback_core.schemas import Outcome, Select
from stepback_core.tasks import TASKS
from stepback_server.engine.cpu_dtype import cpu_dtype
from tests.conftest import CHECKPOINT, held_out

PROBLEM = CountdownProblem(numbers=[3, 5, 7, 25], target=41)
CHECKER = TASKS["countdown"]


@pytest.fixture(scope="module")
def client(server: str) -> Iterator[Client]:
    with Client(server) as client:
        yield client


def test_an_impossible_problem_is_unsolved_and_not_an_error(client: Client) -> None:
    result = client.solve(
        CountdownProblem(numbers=[1, 1], target=99), strategy="best_of_n", breadth=4
    )
    assert result.status == "unsolved"
    assert result.stop_reason == "exhausted"


def test_usage_adds_up(client: Client) -> None:
    """Counted again from the tree: in this vocabulary each character is a token."""
    result = client.solve(
        PROBLEM,
        strategy="self_backtracking",
        sampling="independent",
        select="perplexity",
        tree=True,
        seed=3,
    )
    usage, tree = result.usage, result.tree
    assert tree is not None and result.answer is not None
    assert usage.engine_requests == len(tree) - 1 >= 16
    assert usage.backtracks == sum(node.outcome == "backtrack" for node in tree)

    def tokens(steps: list[str]) -> int:
        return sum(len(step) + 1 for step in steps) + 1

    ended = [node for node in tree[1:] if node.outcome != "unfinished"]
    assert len(ended) == len(tree) - 1
    # A step that was cut off by the marker has no newline.
    generated = sum(tokens(node.steps) for node in ended)
    assert generated - len(ended) <= usage.generated_tokens <= generated
    assert usage.generated_tokens - usage.discarded_tokens == tokens(result.answer.steps)
    # "countdown" is one token.
    assert usage.prompt_tokens == 1 + len(":3,5,7,25=41\n")


@pytest.mark.parametrize("strategy", ["best_first", "self_backtracking", "best_of_n"])
def test_one_sample_at_a_time_with_the_same_seed_gives_the_same_tree_twenty_times(
    client: Client, strategy: Literal["best_first", "self_backtracking", "best_of_n"]
) -> None:
    """Whatever the prefix cache holds by then. More samples at once share batches as time has it,
    and their probabilities differ in the last bits."""

    def once() -> object:
        result = client.solve(
            held_out(1)[0],
            strategy=strategy,
            seed=7,
            breadth=1,
            select=Select.PERPLEXITY,
            temperature=1.5,
            tokens=60,
            tree=True,
        )
        assert result.answer is not None and result.tree is not None
        told = [(node.parent, node.steps, node.outcome, node.score) for node in result.tree]
        return result.answer.steps, result.answer.score, told

    first = once()
    assert all(once() == first for _ in range(20))


def test_held_out_problems_are_solved_by_legal_steps_and_the_search_ends_at_the_first_right_answer(
    client: Client,
) -> None:
    solved = 0
    for problem in held_out(12):
        result = client.solve(problem, tree=True, seed=1)
        assert result.strategy == "best_first"
        assert result.usage.generated_tokens <= 32 * 66
        assert result.answer is not None
        verdict = CHECKER.check(problem, result.answer.steps)
        assert verdict.strict == result.answer.verified == (result.status == "solved")
        assert result.tree is not None
        trace = {0: list[str]()}
        for node in result.tree[1:]:
            assert node.parent is not None
            trace[node.id] = trace[node.parent][: node.kept_steps] + node.steps
            kept = trace[node.id][: node.kept_steps]
            assert all(
                CHECKER.check_step(problem, kept[:at], kept[at]) is None for at in range(len(kept))
            )
        if result.answer.verified:
            assert result.stop_reason == "solved"
            assert result.answer.steps in trace.values()
            solved += 1
    # The model card has 99 %.
    assert solved >= 9


def test_best_first_search_of_a_bare_prompt_looks_for_breadth_answers(client: Client) -> None:
    result = client.solve(prompt="countdown:4,16,25,82=95", breadth=5, candidates=64)
    assert result.status == "unverified"
    assert result.stop_reason == "exhausted"
    assert len(result.candidates) >= 5


# --- the published rule, recomputed from the tree of a real search ---


@pytest.mark.parametrize(("breadth", "backtracks"), [(16, 0), (16, 1), (9, 3)])
def test_a_real_search_follows_the_published_rule(
    client: Client, breadth: int, backtracks: int
) -> None:
    rolled_back = 0
    # Some of these are rolled back to.
    for problem in held_out(8)[4:]:
        result = client.solve(
            problem,
            breadth=breadth,
            strategy="self_backtracking",
            sampling="independent",  # Beams part inside of steps, from one another.
            backtracks=backtracks,
            select="perplexity",
            candidates=1024,
            tree=True,
            seed=11,
        )
        rolled_back += assert_published_rule(result, breadth, backtracks)
    assert backtracks == 0 or rolled_back > 0


def assert_published_rule(result: SolveResult, breadth: int, backtracks: int) -> int:
    """Replay the rule over the tree; returns how many states were rolled back to."""
    nodes = {node.id: node for node in result.tree or []}
    trace = {0: list[str]()}
    for node in sorted(nodes.values(), key=lambda node: node.id):
        if node.parent is not None:
            trace[node.id] = trace[node.parent][: node.kept_steps] + node.steps
    frontier = [(0, list[str]())]
    visited = [list[str]()]
    remaining = sorted(set(nodes) - {0})
    states = 0
    for _ in range(backtracks + 1):
        branches: list[TreeNode] = []
        for parent, kept in frontier:
            expanded = [nodes[remaining.pop(0)] for _ in range(breadth)]
            assert all(n.parent == parent and n.kept_steps == len(kept) for n in expanded)
            assert all(trace[n.id][: len(kept)] == kept for n in expanded)
            branches += expanded
        frontier = []
        for node in branches:
            if len(frontier) == isqrt(breadth) or node.outcome != Outcome.BACKTRACK:
                continue
            state = trace[node.id][:-1]
            if state not in visited:
                visited.append(state)
                frontier.append((node.id, state))
        states += len(frontier)
        if not frontier:
            break
    assert remaining == []
    answers = {tuple(trace[n.id]): n.score for n in nodes.values() if n.outcome == Outcome.ANSWER}
    assert {tuple(c.steps) for c in result.candidates} == set(answers)
    scores = [candidate.score for candidate in result.candidates]
    assert scores == sorted(scores, reverse=True)
    if result.answer:
        assert result.answer.steps == result.candidates[0].steps
    return states


def test_scores_are_the_models_own_log_probabilities(client: Client) -> None:
    """Against a forward pass of plain transformers, with the steps encoded again."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from stepback_core.trace import TraceCodec

    model = AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=cpu_dtype("auto"))
    grammar = Manifest.read(CHECKPOINT).grammar
    codec = TraceCodec.of(grammar, AutoTokenizer.from_pretrained(CHECKPOINT))
    result = client.solve(
        PROBLEM, select="perplexity", temperature=1.3, candidates=8, tokens=600, seed=2
    )
    assert result.candidates
    for candidate in result.candidates:
        prompt = codec.encode_prompt(CHECKER.prompt(PROBLEM))
        answer = [t for step in candidate.steps for t in codec.encode_step(step)]
        answer.append(codec.tokens.end_id)
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer])).logits[0].float()
        logprobs = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        score = logprobs[torch.arange(len(answer)), torch.tensor(answer)].mean().item()
        assert candidate.score == pytest.approx(score, abs=0.05)


def test_greedy_is_one_sample_and_repeats_itself(client: Client) -> None:
    first, second = (client.solve(PROBLEM, strategy="greedy", tree=True) for _ in range(2))
    assert first.usage.engine_requests == 1
    assert first.tree and second.tree and first.tree[1].steps == second.tree[1].steps


def test_best_of_n_and_majority_sample_n(client: Client) -> None:
    best = client.solve(PROBLEM, strategy="best_of_n", breadth=12, select="perplexity")
    vote = client.solve(PROBLEM, strategy="majority", breadth=12, candidates=12)
    assert best.usage.engine_requests == 12
    assert best.select == "perplexity" and vote.select == "vote"
    votes = [candidate.votes for candidate in vote.candidates]
    assert votes == sorted(votes, reverse=True)
    # It stops as soon as no sample that is left can change the answer.
    left = 12 - vote.usage.engine_requests
    assert left == 0 or votes[0] > sum(votes[1:2]) + left


def test_verified_stops_at_the_first_accepted_answer(client: Client) -> None:
    """With more samples than the engine runs at once, some cannot have ended by then."""
    for problem in held_out(10):
        result = client.solve(
            problem, strategy="best_of_n", breadth=256, widening=False, seed=1, tree=True
        )
        if result.status == "solved":
            assert result.stop_reason == "solved"
            # The root, and the branches that had ended by then.
            assert len(result.tree or []) - 1 < result.usage.engine_requests
            return
    pytest.fail("none of ten problems was solved")


def test_a_free_prompt_in_the_models_own_form_is_unverified(client: Client) -> None:
    prompt = "countdown:4,16,25,82=95"
    result = client.solve(prompt=prompt, strategy="best_of_n", breadth=64, seed=1)
    assert result.status == "unverified"
    assert result.select == "perplexity"
    assert result.answer and result.answer.verified is None


def test_a_deadline_that_has_passed_leaves_the_engine_no_work(client: Client) -> None:
    result = client.solve(PROBLEM, select="perplexity", breadth=64, seconds=1e-6)
    assert result.stop_reason == "deadline"
    assert result.usage.generated_tokens < 64 * 5
    assert client.ready().running == 0


def test_many_seeded_searches_at_once_leave_the_engine_alive(server: str) -> None:
    """vLLM 0.32 on a CPU dies of a seeded request whose prefill it splits."""

    async def all_at_once() -> list[SolveResult]:
        async with AsyncClient(server) as client:
            return await asyncio.gather(
                *(
                    client.solve(
                        problem, strategy="best_of_n", breadth=32, widening=False, seed=number
                    )
                    for number, problem in enumerate(held_out(8))
                )
            )

    assert len(asyncio.run(all_at_once())) == 8
    with Client(server) as client:
        assert client.ready().restarts == 0


@pytest.mark.parametrize("tokens", [1, 7, 50, 200, 333])
def test_a_token_budget_is_exact_on_the_real_engine(client: Client, tokens: int) -> None:
    result = client.solve(PROBLEM, select="perplexity", tokens=tokens, breadth=64)
    assert result.usage.generated_tokens <= tokens
    assert result.stop_reason == "token_budget"
    assert result.usage.generated_tokens == tokens


def test_a_deadline_gives_the_best_so_far(client: Client) -> None:
    result = client.solve(
        PROBLEM,
        strategy="self_backtracking",
        select="perplexity",
        breadth=256,
        backtracks=16,
        seconds=0.3,
    )
    assert result.stop_reason == "deadline"
    # As it was asked for, and not as long as it would have taken.
    assert result.usage.seconds_searching < 30


# --- callers who leave, callers side by side ---


def test_a_caller_who_hangs_up_stops_the_engines_work_for_him(server: str) -> None:
    body = {
        "task": "countdown",
        "problem": PROBLEM.model_dump(),
        "select": "perplexity",
        "breadth": 256,
        "strategy": "self_backtracking",
        "backtracks": 16,
    }

    async def hang_up() -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=server, timeout=300) as http:
            call = asyncio.create_task(http.post("/solve", json=body))
            during: dict[str, Any] = {"running": 0}
            while not during["running"]:
                assert not call.done(), "the search ended before it was seen running"
                during = (await http.get("/ready")).json()
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            after, deadline = during, time.monotonic() + 60
            while after["running"] or after["searching"]:
                assert time.monotonic() < deadline, after
                await asyncio.sleep(0.1)
                after = (await http.get("/ready")).json()
            return during

    during = asyncio.run(hang_up())
    assert during["searching"] == 1 and during["running"] > 0


def test_searches_side_by_side_keep_their_own_options(server: str) -> None:
    async def both() -> list[SolveResult]:
        async with AsyncClient(server) as client:
            return await asyncio.gather(
                *(
                    client.solve(PROBLEM, strategy="greedy")
                    if number % 2
                    else client.solve(
                        PROBLEM,
                        strategy="best_of_n",
                        breadth=2 + number,
                        select="perplexity",
                        candidates=1024,
                    )
                    for number in range(20)
                )
            )

    results = asyncio.run(both())
    for number, result in enumerate(results):
        assert result.strategy == ("greedy" if number % 2 else "best_of_n")
        assert result.usage.engine_requests == (1 if number % 2 else 2 + number)
    greedy = {json.dumps(r.answer and r.answer.steps) for r in results[1::2]}
    assert len(greedy) <= 2  # rounding may break a tie another way in another batch


def test_scores_are_finite(client: Client) -> None:
    result = client.solve(PROBLEM, select="perplexity", candidates=1024, tokens=600)
    assert result.candidates and all(math.isfinite(each.score) for each in result.candidates)
