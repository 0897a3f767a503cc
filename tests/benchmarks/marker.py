"""Choosing without a checker: by likelihood, by vote, by the marker, on the same samples.

    stepback serve                                       # in another terminal
    python -m tests.benchmarks.marker [--problems 1000] [--temperatures 0.7,1.3] [--breadth 16]

Each problem is asked twice: greedy, and N samples at once without a checker. All rules choose among
these same N; the checker only marks what each has chosen. A row is solved per cent with the 95 %
interval. The last columns compare the marker with likelihood problem by problem (McNemar's exact
test), and say how much of the gap between likelihood and pass@N the marker closes.
"""

import argparse
import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tqdm import tqdm

from stepback_client import AsyncClient, SolveOptions
from stepback_core.schemas import Answer, Select, Strategy
from stepback_core.tasks import CountdownProblem, Split
from stepback_training.sampling.statistics import Pairs, wilson
from tests.benchmarks.measuring import KINDS, problems

RULES: dict[str, Callable[[Answer], tuple[float, ...]]] = {
    "likelihood": lambda answer: (answer.score,),
    "vote": lambda answer: (answer.votes, answer.score),
    "marker": lambda answer: (answer.confidence, answer.score),
    "weighted vote": lambda answer: (answer.weight, answer.score),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One problem's samples, and whether its greedy answer is right."""

    greedy: bool
    candidates: Sequence[Answer]
    tokens: int

    def right(self, rule: str) -> bool:
        """Whether a rule chooses a right answer."""
        if rule == "greedy":
            return self.greedy
        if rule == "pass@N":
            return any(answer.verified for answer in self.candidates)
        chosen = max(self.candidates, key=RULES[rule], default=None)
        return chosen is not None and bool(chosen.verified)


async def _ask(
    client: AsyncClient, problem: CountdownProblem, number: int, breadth: int, temperature: float
) -> Asked:
    common: SolveOptions = {"select": Select.PERPLEXITY, "seed": number, "candidates": breadth}
    greedy = await client.solve(problem, strategy=Strategy.GREEDY, **common)
    sampled = await client.solve(
        problem,
        strategy=Strategy.BEST_OF_N,
        breadth=breadth,
        temperature=temperature,
        widening=False,
        **common,
    )
    first = greedy.candidates[0] if greedy.candidates else None
    tokens = sampled.usage.generated_tokens
    return Asked(first is not None and bool(first.verified), sampled.candidates, tokens)


async def _ask_all(url: str, kind: Split, options: argparse.Namespace, t: float) -> list[Asked]:
    gate = asyncio.Semaphore(options.in_flight)
    asked = problems(kind, options.problems)
    bar = tqdm(total=len(asked), desc=f"{kind.value} T={t}")

    async with AsyncClient(url, timeout=600) as client:

        async def one(number: int) -> Asked:
            async with gate:
                found = await _ask(client, asked[number].model_dump(), number, options.breadth, t)
            bar.update()
            return found

        return list(await asyncio.gather(*(one(number) for number in range(len(asked)))))


def report(kind: str, temperature: float, asked: Sequence[Asked]) -> None:
    """Print one table's rows."""
    solved = {rule: [each.right(rule) for each in asked] for rule in ("greedy", *RULES, "pass@N")}
    tokens = sum(each.tokens for each in asked) / len(asked)
    for rule, right in solved.items():
        low, high = wilson(sum(right), len(right))
        share = 100 * sum(right) / len(right)
        print(f"| {kind} | {temperature} | {rule} | {share:.1f} ({low:.1f} to {high:.1f}) |")
    pairs = Pairs.count(solved["marker"], solved["likelihood"])
    gap = sum(solved["pass@N"]) - sum(solved["likelihood"])
    closed = (pairs.wins - pairs.losses) / gap if gap else float("nan")
    print(
        f"{kind}, T={temperature}: marker alone right {pairs.wins}, "
        f"likelihood alone {pairs.losses}, "
        f"p = {pairs.p:.2g}; {100 * closed:.0f} % of the gap closed; {tokens:.0f} tokens a problem",
        flush=True,
    )


async def _main(options: argparse.Namespace) -> None:
    for temperature in map(float, options.temperatures.split(",")):
        for kind in KINDS:
            report(kind.value, temperature, await _ask_all(options.url, kind, options, temperature))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--temperatures", default="0.7,1.3")
    parser.add_argument("--breadth", type=int, default=16)
    parser.add_argument("--in-flight", type=int, default=32)
    asyncio.run(_main(parser.parse_args()))


if __name__ == "__main__":
    main()
