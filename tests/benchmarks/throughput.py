"""`make bench`: tokens/s through HTTP against one offline `LLM.generate` call, as a ratio.

Both sides sample the same new problems with the same engine and sampling settings and breadth, so
the work is the same but for chance; each round has other problems, so no prompt is cached. Offline
runs before and after HTTP, in processes of their own, in one run of this file. The ratio is of the
medians. The first round of each warms up and is not counted.
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


def offline(count: int, breadth: int, rounds: int) -> list[float]:
    """Tokens/s of LLM.generate, each round one call with every problem."""
    from vllm import LLM, SamplingParams
    from vllm.inputs import tokens_input

    from stepback_server.checkpoint import Checkpoint
    from stepback_server.engine.options import engine_options
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
            max_running=settings.max_running,
        )
    )
    params = SamplingParams(
        temperature=0.7,
        max_tokens=manifest.answer_tokens,
        stop_token_ids=list(codec.tokens.stop_ids),
        ignore_eos=True,
        logprobs=0,
        detokenize=False,
    )
    rates: list[float] = []
    for number in range(rounds + 1):
        prompts: list[Any] = [
            tokens_input(codec.encode_prompt(TASK.prompt(problem)))
            for problem in problems(count, number)
            for _ in range(breadth)
        ]
        started = time.monotonic()
        outputs = llm.generate(prompts, params, use_tqdm=False)
        tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
        rates.append(tokens / (time.monotonic() - started))
    return rates[1:]


async def over_http(url: str, count: int, breadth: int, rounds: int, flying: int) -> list[float]:
    """Tokens/s of POST /solve with `flying` searches in flight."""
    rates: list[float] = []
    async with AsyncClient(url) as client:
        for number in range(rounds + 1):
            queue = iter(problems(count, number))
            started = time.monotonic()
            used = await asyncio.gather(*(worker(client, queue, breadth) for _ in range(flying)))
            rates.append(sum(used) / (time.monotonic() - started))
    return rates[1:]


async def worker(client: AsyncClient, queue: Iterator[CountdownProblem], breadth: int) -> int:
    tokens = 0
    for problem in queue:
        result = await client.solve(
            problem, strategy="best_of_n", breadth=breadth, select="perplexity"
        )
        tokens += result.usage.generated_tokens
    return tokens


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=192)
    parser.add_argument("--breadth", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--offline", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.offline:
        rates = offline(given.problems, given.breadth, given.rounds)
        given.offline.write_text(json.dumps(rates))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        # Offline first, HTTP, and offline again: a neighbour who comes or goes shows as a spread.
        before = offline_in_a_process(Path(folder))
        with controller(Path(folder) / "log.txt", log_level="warning") as url:
            http = asyncio.run(
                over_http(url, given.problems, given.breadth, given.rounds, given.in_flight)
            )
        after = offline_in_a_process(Path(folder))
    report("offline LLM.generate", before + after)
    report(f"HTTP, {given.in_flight} in flight", http)
    print(
        f"ratio HTTP / offline: {statistics.median(http) / statistics.median(before + after):.2f}"
    )
    return 0


def offline_in_a_process(folder: Path) -> list[float]:
    rates = folder / "rates.json"
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.throughput",
        *sys.argv[1:],
        "--offline",
        rates,
    ]
    subprocess.run([*map(str, command)], check=True, stdout=subprocess.DEVNULL)
    found: list[float] = json.loads(rates.read_text())
    return found


def report(name: str, rates: list[float]) -> None:
    spread = ", ".join(f"{rate:,.0f}" for rate in rates)
    print(f"{name}: {statistics.median(rates):,.0f} tokens/s (rounds: {spread})")


if __name__ == "__main__":
    sys.exit(main())
