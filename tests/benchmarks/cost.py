"""`make bench-cost`: new, cached and prefilled tokens of a search as it grows. Needs `training`.

    python -m tests.benchmarks.cost [--part countdown|sudoku|untrained] [--sudoku CHECKPOINT]

Over vLLM in this process. Short problems: held-out Countdown by the bundled checkpoint, which gives
the cost of a solved problem too. Longer ones: Sudoku of 9x9 by a checkpoint of
training/recipes/sudoku9.toml, where one is given. The longest: prompts of up to thousands of tokens
by an untrained Llama of the same width, since what a search costs does not need a good model. It
writes each token of its vocabulary with about equal probability, so that the vocabulary's size sets
how long a continuation is; an eighth of its tokens end a step.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from pydantic import BaseModel

from stepback_core.trace import TokenGrammar
from stepback_server.checkpoint import Checkpoint
from stepback_server.engine.base import Engine
from stepback_server.engine.embedded import EmbeddedEngine
from stepback_server.search.best_first import BestFirst
from stepback_server.search.loop import Limits, Search, Searched
from stepback_server.search.sampling import Independent
from stepback_server.search.self_backtracking import SelfBacktracking
from stepback_server.search.strategy import SearchStrategy
from stepback_server.settings import Settings
from stepback_training.generators import GENERATORS, Generator, Split
from tests.benchmarks.ablation import Bench
from tests.benchmarks.counting import CountingEngine
from tests.benchmarks.measuring import TASK, both_kinds
from tests.benchmarks.solving import start_engine
from tests.conftest import CHECKPOINT
from tests.progress import clock

_CONTEXT = 8192
_HEADER = (
    "| search | prompt | samples | tokens a sample | new | cached | prefilled | cached share |\n"
    + "| --- " * 8
    + "|"
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Token costs of some searches, as a row of means a search."""

    prompted: int
    searched: list[Searched]

    def mean(self, what: str) -> float:
        return sum(getattr(each.spent, what) for each in self.searched) / len(self.searched)

    def row(self, name: str, prompt: str) -> str:
        samples, new, cached = (self.mean(what) for what in ("requests", "generated", "cached"))
        prompted = self.prompted / len(self.searched)
        return (
            f"| {name} | {prompt} | {samples:.1f} | {new / samples:.0f} | {new:,.0f} "
            f"| {cached:,.0f} | {prompted - cached:,.0f} | {100 * cached / prompted:.0f} % |"
        )


# --- trained models ---

_SEARCHES = ("best-first search", "best-of-N, temperature 1.3")


async def countdown(problems: int) -> None:
    checkpoint = Checkpoint.open(CHECKPOINT)
    print(f"Countdown, {2 * problems} problems, until one is solved:\n")
    await _budgets(checkpoint, TASK, both_kinds(problems), (125, 250, 500, 1000, 2000))


async def sudoku(model: Path, problems: int) -> None:
    checkpoint = Checkpoint.open(model)
    task = GENERATORS["sudoku"].with_options({"size": 9, "givens": [30, 50]})
    asked = list(islice(task.stream(Split.TEST_SEEN, Random(2026)), problems))
    print(f"\nSudoku of 9x9, {problems} problems, until one is solved:\n")
    await _budgets(checkpoint, task, asked, (500, 1000, 2000, 4000, 8000))


async def _budgets(
    checkpoint: Checkpoint, task: Generator[Any], asked: Sequence[BaseModel], budgets: Sequence[int]
) -> None:
    """A row for each search under each budget."""
    prompts = [len(checkpoint.codec.encode_prompt(task.checker.prompt(each))) for each in asked]
    length = f"{sum(prompts) / len(prompts):.0f}"
    engine = start_engine(checkpoint)
    more = "cached share | solved | new a solved one |"
    print(_HEADER.replace("cached share |", more).strip() + " --- | --- |")
    try:
        for budget in budgets:
            for name in _SEARCHES:
                counting = CountingEngine(engine)
                bench = Bench(counting, checkpoint, in_flight=32, task=task)
                row = await bench.measure(name, bench.strategies()[name], budget, asked)
                cost = Cost(counting.prompted, list(row.searched))
                solved = sum(each.stop_reason == "solved" for each in row.searched)
                new = sum(each.spent.generated for each in row.searched)
                each_solved = f"{new / solved:,.0f}" if solved else "none"
                print(
                    cost.row(f"{name}, budget {budget:,}", length),
                    f"{100 * solved / len(asked):.0f} % | {each_solved} |",
                    flush=True,
                )
    finally:
        await engine.close(kill=False)


# --- the longest, an untrained model ---


@dataclass(frozen=True, slots=True)
class Shape:
    """Shape of a long search."""

    prompt: int
    sample: int
    """About the mean length of a continuation: half the vocabulary."""
    breadth: int
    rounds: int


def shapes() -> Iterable[Shape]:
    """Each dimension by itself, from the middle."""
    yield from (Shape(prompt, 128, 16, 1) for prompt in (100, 1000, 4000))
    yield from (Shape(1000, sample, 16, 1) for sample in (32, 256))
    yield from (Shape(1000, 128, breadth, 1) for breadth in (4, 64))
    yield from (Shape(1000, 128, 16, rounds) for rounds in (0, 4))


def untrained(folder: Path, vocabulary: int) -> None:
    """Write a Llama of the bundled checkpoint's shape with random weights and a long context."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    config = LlamaConfig.from_pretrained(
        CHECKPOINT,
        vocab_size=vocabulary,
        max_position_embeddings=_CONTEXT,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=None,
    )
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)


async def long_ones(shapes: list[Shape]) -> None:
    """Shapes of one vocabulary."""
    vocabulary = 2 * shapes[0].sample
    grammar = TokenGrammar(
        marker_id=1, end_id=0, separator_ids=frozenset(range(2, 2 + vocabulary // 8))
    )
    with tempfile.TemporaryDirectory() as folder:
        untrained(Path(folder), vocabulary)
        engine = EmbeddedEngine.start(
            Path(folder), Settings(kv_cache_mib=1024), context_tokens=_CONTEXT
        )
        try:
            for shape in shapes:
                await _measure(engine, shape, grammar, vocabulary)
        finally:
            await engine.close(kill=False)


async def _measure(engine: Engine, shape: Shape, grammar: TokenGrammar, vocabulary: int) -> None:
    longest = min(4 * shape.sample, _CONTEXT - shape.prompt)
    published = SelfBacktracking(
        shape.breadth,
        shape.rounds,
        grammar,
        lambda state: Independent(shape.breadth, 1.0, state=state),
    )
    ways: dict[str, SearchStrategy] = {
        f"self-backtracking, N={shape.breadth}, b={shape.rounds}": published
    }
    if shape.rounds == 1:
        ways[f"best-of-N, N={shape.breadth}"] = Independent(shape.breadth, 1.0)
        ways["best-first search"] = BestFirst(
            shape.breadth, grammar, None, longest=longest, enough=shape.breadth
        )
    for name, strategy in ways.items():
        counting = CountingEngine(engine)
        prompt = tuple(Random(f"{shape} {name}").choices(range(2, vocabulary), k=shape.prompt))
        searched = await Search(
            engine=counting,
            strategy=strategy,
            grammar=grammar,
            prompt_ids=prompt,
            limits=Limits(
                tokens=shape.breadth * shape.sample if name.startswith("best-first") else 10**6,
                seconds=600,
                tokens_per_branch=longest,
            ),
            seed=1,
            is_win=lambda branch: False,
        ).run()
        print(Cost(counting.prompted, [searched]).row(name, f"{shape.prompt:,}"), flush=True)


def long_problems() -> None:
    print(f"\nAn untrained model, one search each:\n\n{_HEADER}")
    by_length: dict[int, list[Shape]] = {}
    for shape in shapes():
        by_length.setdefault(shape.sample, []).append(shape)
    for same in by_length.values():
        asyncio.run(long_ones(same))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=100, help="of each kind")
    parser.add_argument("--sudoku", type=Path, help="a checkpoint of sudoku9.toml")
    parser.add_argument("--part", choices=["countdown", "sudoku", "untrained"], help="only this")
    given = parser.parse_args()
    if given.part == "sudoku" and given.sudoku is None:
        parser.error("--part sudoku: say which checkpoint with --sudoku")
    with clock("searches"):
        if given.part in (None, "countdown"):
            asyncio.run(countdown(given.problems))
        if given.part in (None, "sudoku") and given.sudoku is not None:
            asyncio.run(sudoku(given.sudoku, given.problems))
        if given.part in (None, "untrained"):
            long_problems()
    return 0


if __name__ == "__main__":
    sys.exit(main())
