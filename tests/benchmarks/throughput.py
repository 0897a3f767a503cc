"""`make bench`: tokens/s through HTTP against one offline `LLM.generate` call, as ratios.

Best-of-N: both sides sample the same new problems with the same engine, sampling settings and
breadth, so the work is the same but for chance. Best-first search keeps fewer sequences running,
wants the likeliest tokens at each position, and writes short continuations of prefixes that have to
be computed first. Its offline side is given the very requests of such a search, recorded before:
the same prompts, as many tokens of each, as many sequences running as there were on average.

Each round has other problems, so no prompt is cached. Offline and HTTP take turns, in processes of
their own, in one run of this file. The ratios are of the medians. The first round of each process
warms up, with a quarter of the problems, and is not counted. The first process also finds how many
problems keep this machine busy for `--seconds`, so that all is over in five minutes on any.
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
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from stepback_client import AsyncClient, CountdownProblem
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import OnSample, Sample, SampleRequest
from stepback_server.engine.embedded import EmbeddedEngine
from stepback_server.engine.vllm_options import engine_options
from stepback_server.search.best_first import BestFirstConfig
from stepback_server.settings import Settings
from stepback_training.generators import GENERATORS, Split
from tests.benchmarks.ablation import Bench
from tests.benchmarks.solving import start_engine
from tests.conftest import CHECKPOINT, controller
from tests.progress import counted

TASK = GENERATORS["countdown"]


def problems(count: int, number: int) -> list[CountdownProblem]:
    """The problems of a round; the first one warms up."""
    asked = count if number else max(1, count // 4)
    return list(islice(TASK.stream(Split.TEST_SEEN, Random(number)), asked))


_BEST_FIRST_PROBLEMS = 8
"""Factor over the problems of best-of-N, since it takes fewer tokens for each."""
_ANSWER_TOKENS = 25
"""Tokens of a usual answer."""
_WARMING = 12
"""Problems of a round that warms up and is sized by, and the fewest of any round."""
_ANSWERS = 32
"""Whole answers that a controller's own budget for best-first search pays for."""
Wanted = list[tuple[tuple[int, ...], int]]
"""The prompts of a round, in token ids, and how many tokens each is to be continued by at most."""


@dataclass(frozen=True, slots=True)
class Offline:
    """Rounds of LLM.generate."""

    problems: int
    """Problems of a round."""
    rates: list[float]
    """Tokens/s, each round one call."""


def offline(given: argparse.Namespace) -> Offline:
    """Generate the rounds in a process without HTTP; sizes them where no number is given."""
    checkpoint = Checkpoint.open(CHECKPOINT)
    # First: its engine must be gone before another starts.
    rounds = asyncio.run(searched(given, checkpoint)) if given.running else []
    generate = Generation(given, checkpoint)
    if not given.problems:
        rate = generate(next(sampled(given, checkpoint, 4 * _WARMING)))
        # A round of samples has breadth x problems x answers of this many tokens, about.
        fitting = round(rate * given.seconds / given.breadth / _ANSWER_TOKENS)
        given.problems = max(_WARMING, fitting)
    rounds = rounds or list(sampled(given, checkpoint, given.problems))
    rates = [generate(wanted) for wanted in counted(rounds, "offline, rounds")]
    return Offline(given.problems, rates[1:])


class Generation:
    """An engine without HTTP, and what it is asked with."""

    def __init__(self, given: argparse.Namespace, checkpoint: Checkpoint) -> None:
        from vllm import LLM

        self._given = given
        self._stop_ids = list(checkpoint.codec.tokens.stop_ids)
        settings = Settings(max_running=given.running or Settings().max_running)
        options = engine_options(CHECKPOINT, settings, context_tokens=checkpoint.context_tokens)
        self._llm = LLM(**options)

    def __call__(self, wanted: Wanted) -> float:
        """Tokens/s of one call for all of them."""
        from vllm import SamplingParams
        from vllm.inputs import tokens_input

        given = self._given
        prompts: list[Any] = [tokens_input(list(ids)) for ids, _ in wanted]
        params = [
            SamplingParams(
                temperature=0.0 if given.running else 0.7,
                max_tokens=tokens,
                # What was recorded ends where it ended.
                stop_token_ids=[] if given.running else self._stop_ids,
                ignore_eos=True,
                logprobs=BestFirstConfig().alternatives if given.running else 0,
                detokenize=False,
            )
            for _, tokens in wanted
        ]
        started = time.monotonic()
        outputs = self._llm.generate(prompts, params, use_tqdm=False)
        tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
        return tokens / (time.monotonic() - started)


def sampled(given: argparse.Namespace, checkpoint: Checkpoint, count: int) -> Iterator[Wanted]:
    """Every problem of a round `breadth` times, round by round."""
    longest = checkpoint.longest_answer(TASK.name)
    for number in range(given.rounds + 1):
        yield [
            (tuple(checkpoint.codec.encode_prompt(TASK.checker.prompt(problem))), longest)
            for problem in problems(count, number)
            for _ in range(given.breadth)
        ]


async def searched(given: argparse.Namespace, checkpoint: Checkpoint) -> list[Wanted]:
    """Record the requests of best-first search, round by round, and the length of each sample."""
    recording = Recording(start_engine(checkpoint))
    bench = Bench(recording, checkpoint, given.in_flight)
    search = bench.strategies()["best-first search"]
    longest = checkpoint.longest_answer(TASK.name)
    rounds: list[Wanted] = []
    for number in counted(range(given.rounds + 1), "recording, rounds"):
        asked = problems(_BEST_FIRST_PROBLEMS * given.problems, number)
        await bench.measure("recording", search, _ANSWERS * longest, asked)
        rounds.append(recording.take())
    await recording.engine.close(kill=False)
    return rounds


class Recording:
    """An engine that remembers what it was asked for, and what came."""

    def __init__(self, engine: EmbeddedEngine) -> None:
        self.engine = engine
        self._wanted: Wanted = []

    async def sample(self, request: SampleRequest, stop: asyncio.Event, deliver: OnSample) -> None:
        def noted(sample: Sample) -> None:
            if sample.generated_tokens:
                self._wanted.append((request.ids, sample.generated_tokens))
            deliver(sample)

        await self.engine.sample(request, stop, noted)

    def take(self) -> Wanted:
        taken, self._wanted = self._wanted, []
        return taken


@dataclass(frozen=True, slots=True)
class OverHttp:
    """Rounds of POST /solve, with `--in-flight` searches at once."""

    rates: list[float]
    """Tokens/s."""
    running: float
    """Sequences that the engine was running, on average."""


async def over_http(url: str, given: argparse.Namespace, count: int, **options: Any) -> OverHttp:
    rates: list[float] = []
    running: list[int] = []
    async with AsyncClient(url) as client:
        for number in counted(range(given.rounds + 1), f"{options['strategy']}, rounds"):
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
    parser.add_argument("--problems", type=int, help="of a round; as many as fit --seconds")
    parser.add_argument("--seconds", type=float, default=3.5, help="of a round, about")
    parser.add_argument("--breadth", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--offline", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--running", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.offline:
        given.offline.write_text(json.dumps(asdict(offline(given))))
        return 0
    with tempfile.TemporaryDirectory() as name:
        compare(Path(name), given)
    return 0


def compare(folder: Path, given: argparse.Namespace) -> None:
    """Offline, HTTP, and offline again: a neighbour who comes or goes shows as a spread."""
    best_of_n = {"strategy": "best_of_n", "breadth": given.breadth, "select": "perplexity"}
    first = offline_in_a_process(folder)
    before, given.problems = first.rates, first.problems
    sized = ("--problems", str(given.problems))
    count = _BEST_FIRST_PROBLEMS * given.problems
    best_first = partial(over_http, given=given, count=count, strategy="best_first")
    with controller(folder / "log.txt", log_level="warning") as url:
        sampled = asyncio.run(over_http(url, given, given.problems, **best_of_n)).rates
        searched = asyncio.run(best_first(url))
    running = str(max(1, round(searched.running)))
    greedy = offline_in_a_process(folder, *sized, "--running", running).rates
    with controller(folder / "log.txt", log_level="warning") as url:
        again = asyncio.run(best_first(url))
    after = offline_in_a_process(folder, *sized).rates
    print(f"{given.in_flight} searches in flight")
    report("best-of-N", sampled, before + after)
    print(f"sequences running: {searched.running:.0f}, {again.running:.0f}")
    report("best-first", searched.rates + again.rates, greedy)


def offline_in_a_process(folder: Path, *flags: str) -> Offline:
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
    return Offline(**json.loads(rates.read_text()))


def report(name: str, http: list[float], offline: list[float]) -> None:
    for side, rates in (("HTTP", http), ("offline LLM.generate", offline)):
        spread = ", ".join(f"{rate:,.0f}" for rate in rates)
        print(f"{name}, {side}: {statistics.median(rates):,.0f} tokens/s (rounds: {spread})")
    print(f"{name}, HTTP / offline: {statistics.median(http) / statistics.median(offline):.2f}")


if __name__ == "__main__":
    sys.exit(main())
