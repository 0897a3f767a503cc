"""`make bench-ablation`: what each idea of best-first search is worth, by leaving it out.

    python -m tests.benchmarks.ablation [--problems 300] [--budgets 250,500] [--in-flight 32]

The search loop itself over vLLM in this process, without HTTP: every row solves the same held-out
problems of both kinds under the same exact token budget, and the task's checker ends each search at
the first right answer. The last row samples with repetition instead, and widens as the others do.
*Lost* and *won* are problems that only the whole search or only the row solves, p is McNemar's.
Problems/s are for comparing rows of one run, on one machine. The problems are the development ones.
"""

import argparse
import asyncio
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from tqdm import tqdm

from stepback_core.schemas import Outcome
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import Engine
from stepback_server.search.best_first import BestFirst, BestFirstConfig
from stepback_server.search.loop import Limits, Search, Searched
from stepback_server.search.sampling import Independent
from stepback_server.search.strategy import SearchStrategy
from stepback_server.search.task_view import TaskView
from stepback_server.search.tree import Branch
from stepback_training.generators import Generator
from stepback_training.sampling.statistics import Pairs
from tests.benchmarks.measuring import KINDS, TASK, both_kinds, share, whole_numbers
from tests.benchmarks.solving import start_engine
from tests.conftest import CHECKPOINT

_SAMPLES = 256
"""More than any budget here pays for."""

IDEAS = {
    "best-first search": BestFirstConfig(),
    "without legality": BestFirstConfig(legality=False),
    "without merging": BestFirstConfig(merging=False),
    "without likeliest first": BestFirstConfig(likeliest_first=False),
    "without the marker": BestFirstConfig(marker=False),
    "without widening": BestFirstConfig(widening=False),
    "2 alternatives": BestFirstConfig(alternatives=2),
    "8 alternatives": BestFirstConfig(alternatives=8),
    "chunks of 8 tokens": BestFirstConfig(chunk_tokens=8),
    "no chunks": BestFirstConfig(chunk_tokens=_SAMPLES),
    "stopping at steps": BestFirstConfig(stop_at_steps=True),
}

MakeStrategy = Callable[[TaskView], SearchStrategy]


@dataclass(frozen=True, slots=True)
class Row:
    """One way to search, under one budget."""

    name: str
    budget: int
    searched: Sequence[Searched]
    """The kinds of problems one after another, as many of each."""
    seconds: float

    @property
    def solved(self) -> list[bool]:
        return [each.stop_reason == "solved" for each in self.searched]

    def against(self, whole: "Row") -> str:
        """The row's line, compared with the whole search problem by problem."""
        pairs = Pairs.count(whole.solved, self.solved)
        return f"{self} {pairs.wins} | {pairs.losses} | {pairs.p:.2g} |"

    def __str__(self) -> str:
        count = len(self.searched)
        tokens = sum(each.spent.generated for each in self.searched) / count
        requests = sum(each.spent.requests for each in self.searched) / count
        size = count // len(KINDS)
        solved = (_solved(self.searched[at : at + size]) for at in range(0, count, size))
        return (
            f"| {self.name} | {self.budget} | {' | '.join(solved)} | {tokens:.0f} "
            f"| {requests:.1f} | {count / self.seconds:.1f} |"
        )


def _solved(searched: Sequence[Searched]) -> str:
    hits = sum(each.stop_reason == "solved" for each in searched)
    return share(hits, len(searched))


class Bench:
    """Searches over one engine, several in flight at once."""

    def __init__(
        self, engine: Engine, checkpoint: Checkpoint, in_flight: int, task: Generator[Any] = TASK
    ) -> None:
        self._engine = engine
        self._task = task
        self._codec = checkpoint.codec
        self._answer_tokens = checkpoint.longest_answer(task.name)
        self._limit = asyncio.Semaphore(in_flight)

    def strategies(self) -> dict[str, MakeStrategy]:
        def best_first(config: BestFirstConfig) -> MakeStrategy:
            return lambda view: BestFirst(
                16,
                self._codec.tokens,
                view,
                longest=self._answer_tokens,
                enough=None,
                config=config,
            )

        return {name: best_first(config) for name, config in IDEAS.items()} | {
            "best-of-N, temperature 1.3": lambda view: Independent(_SAMPLES, 1.3, widening=True),
        }

    async def measure(
        self, name: str, make: MakeStrategy, budget: int, asked: Sequence[BaseModel]
    ) -> Row:
        with tqdm(total=len(asked), desc=f"{name}, {budget} tokens", leave=False) as bar:

            async def one(number: int, problem: BaseModel) -> Searched:
                async with self._limit:
                    searched = await self._search(problem, make, budget, number)
                bar.update()
                return searched

            started = time.monotonic()
            searched = await asyncio.gather(*(one(*each) for each in enumerate(asked)))
            return Row(name, budget, searched, time.monotonic() - started)

    async def _search(
        self, problem: BaseModel, make: MakeStrategy, budget: int, seed: int
    ) -> Searched:
        task = self._task
        view = TaskView(task.checker, problem, self._codec)

        def is_win(branch: Branch) -> bool:
            steps = self._codec.decode_steps(branch.ids)
            verdict = task.checker.check(problem, steps)
            return branch.outcome is Outcome.ANSWER and verdict.strict is True

        return await Search(
            engine=self._engine,
            strategy=make(view),
            grammar=self._codec.tokens,
            prompt_ids=tuple(self._codec.encode_prompt(task.checker.prompt(problem))),
            limits=Limits(tokens=budget, seconds=600, tokens_per_branch=self._answer_tokens),
            seed=seed,
            is_win=is_win,
        ).run()


async def measure_all(given: argparse.Namespace) -> None:
    checkpoint = Checkpoint.open(CHECKPOINT)
    engine = start_engine(checkpoint)
    try:
        bench = Bench(engine, checkpoint, given.in_flight)
        strategies = bench.strategies()
        # The engine's first requests pay for what it sets up once.
        await bench.measure("warming up", next(iter(strategies.values())), 100, both_kinds(16))
        heads = "search | budget | seen % (95 %) | new % (95 %) | tokens | requests | problems/s"
        print(f"| {heads} | lost | won | p |", "| --- " * 10 + "|", sep="\n")
        asked = both_kinds(given.problems)
        for budget in given.budgets:
            whole: Row | None = None
            for name, make in strategies.items():
                if whole and not re.search(given.only, name):
                    continue
                row = await bench.measure(name, make, budget, asked)
                whole = whole or row
                print(row.against(whole), flush=True)
    finally:
        await engine.close(kill=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=300, help="of each kind")
    parser.add_argument("--budgets", type=whole_numbers, default=[250, 500])
    parser.add_argument("--in-flight", type=int, default=32)
    parser.add_argument("--only", default="", help="rows besides the first whose name matches")
    asyncio.run(measure_all(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
