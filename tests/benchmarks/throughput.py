"""`make bench`: tokens/s through HTTP against one offline `LLM.generate` call, as ratios.

Best-of-N: both sides sample the same new problems with the same engine, sampling settings and
breadth, so the work is the same but for chance. Best-first search keeps fewer sequences running and
wants the likeliest tokens at each position: its offline side runs as many sequences as were running
on average, greedily, with as many log-probabilities.

Each round has other problems, so no prompt is cached. Offline and HTTP take turns, in processes of
their own, in one run of this file. The ratios are of the medians. The first round of each process
warms up and is not counted.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from stepback_client import AsyncClient, CountdownProblem
from stepback_core.tasks import TASKS, Split
from tests.conftest import CHECKPOINT, controller

TASK = TASKS["countdown"]


def problems(count: int, number: int) -> list[CountdownProblem]:
    """The problems of a round."""
    return list(islice(TASK.stream(Split.TEST_SEEN, Random(number)), count))


def offline(given: argparse.Namespace) -> list[float]:
    """Tokens/s of LLM.generate, each round one call with every problem `breadth` times."""
    from vllm import LLM, SamplingParams
    from vllm.inputs import tokens_input

    from stepback_server.checkpoint import Checkpoint
    from stepback_server.engine.options import engine_options
    from stepback_server.search.best_first import Ideas
    from stepback_server.settings import Settings

    settings = Settings()
    checkpoint = Checkpoint.open(CHECKPOINT)
    manifest, codec = checkpoint.manifest, checkpoint.codec
    llm = LLM(
        **engine_options(
            CHECKPOINT,
            context_tokens=checkpoint.context_tokens,
            cpu=True,
            kv_cache_bytes=settings.kv_cache_mib << 20,
            max_running=given.running or settings.max_running,
        )
    )
    params = SamplingParams(
        temperature=0.0 if given.running else 0.7,
        max_tokens=manifest.answer_tokens,
        stop_token_ids=list(codec.tokens.stop_ids),
        ignore_eos=True,
        logprobs=Ideas().alternatives if given.running else 0,
        detokenize=False,
    )
    rates: list[float] = []
    for number in range(given.rounds + 1):
        prompts: list[Any] = [
            tokens_input(codec.encode_prompt(TASK.prompt(problem)))
            for problem in problems(given.problems, number)
            for _ in range(given.breadth)
        ]
        started = time.monotonic()
        outputs = llm.generate(prompts, params, use_tqdm=False)
        tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
        rates.append(tokens / (time.monotonic() - started))
    return rates[1:]


@dataclass(frozen=True, slots=True)
class OverHttp:
    """Rounds of POST /solve with so many searches in flight."""

    rates: list[float]
    """Tokens/s."""
    running: float
    """Sequences that the engine was running, on average."""


async def over_http(url: str, given: argparse.Namespace, count: int, **options: Any) -> OverHttp:
    rates: list[float] = []
    running: list[int] = []
    async with AsyncClient(url) as client:
        for number in range(given.rounds + 1):
            queue = iter(problems(count, number))
            started = time.monotonic()
            watching = asyncio.create_task(watch(client, running))
            workers = (worker(client, queue, options) for _ in range(given.in_flight))
            used = await asyncio.gather(*workers)
            rates.append(sum(used) / (time.monotonic() - started))
            watching.cancel()
    return OverHttp(rates[1:], statistics.mean(running))


async def worker(
    client: AsyncClient, queue: Iterator[CountdownProblem], options: dict[str, Any]
) -> int:
    tokens = 0
    for problem in queue:
        tokens += (await client.solve(problem, **options)).usage.generated_tokens
    return tokens


async def watch(client: AsyncClient, running: list[int]) -> None:
    while True:
        running.append((await client.ready()).running)
        await asyncio.sleep(0.1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=192)
    parser.add_argument("--breadth", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--offline", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--running", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.offline:
        given.offline.write_text(json.dumps(offline(given)))
        return 0
    with tempfile.TemporaryDirectory() as name:
        compare(Path(name), given)
    return 0


def compare(folder: Path, given: argparse.Namespace) -> None:
    """Offline, HTTP, and offline again: a neighbour who comes or goes shows as a spread."""
    best_of_n = {"strategy": "best_of_n", "breadth": given.breadth, "select": "perplexity"}
    best_first = partial(over_http, given=given, count=4 * given.problems, strategy="best_first")
    before = offline_in_a_process(folder)
    with controller(folder / "log.txt", log_level="warning") as url:
        sampled = asyncio.run(over_http(url, given, given.problems, **best_of_n)).rates
        searched = asyncio.run(best_first(url))
    greedy = offline_in_a_process(folder, "--running", str(round(searched.running)))
    with controller(folder / "log.txt", log_level="warning") as url:
        again = asyncio.run(best_first(url))
    after = offline_in_a_process(folder)
    print(f"{given.in_flight} searches in flight")
    report("best-of-N", sampled, before + after)
    print(f"sequences running: {searched.running:.0f}, {again.running:.0f}")
    report("best-first", searched.rates + again.rates, greedy)


def offline_in_a_process(folder: Path, *flags: str) -> list[float]:
    rates = folder / "rates.json"
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.throughput",
        *sys.argv[1:],
        *flags,
        "--offline",
        rates,
    ]
    subprocess.run([*map(str, command)], check=True, stdout=subprocess.DEVNULL)
    found: list[float] = json.loads(rates.read_text())
    return found


def report(name: str, http: list[float], offline: list[float]) -> None:
    for side, rates in (("HTTP", http), ("offline LLM.generate", offline)):
        spread = ", ".join(f"{rate:,.0f}" for rate in rates)
        print(f"{name}, {side}: {statistics.median(rates):,.0f} tokens/s (rounds: {spread})")
    print(f"{name}, HTTP / offline: {statistics.median(http) / statistics.median(offline):.2f}")


if __name__ == "__main__":
    sys.exit(main())
