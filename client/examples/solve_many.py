"""Solve several problems side by side: `python client/examples/solve_many.py [URL]`."""

import asyncio
import sys

from stepback_client import AsyncClient, CountdownProblem, SolveResult

PROBLEMS = [
    CountdownProblem(numbers=[4, 16, 25, 82], target=95),
    CountdownProblem(numbers=[4, 9, 50, 75], target=30),
    CountdownProblem(numbers=[2, 8, 11, 60], target=74),
]


async def solve_all(url: str) -> list[SolveResult]:
    async with AsyncClient(url) as client:
        return await asyncio.gather(*(client.solve(problem) for problem in PROBLEMS))


url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
for problem, result in zip(PROBLEMS, asyncio.run(solve_all(url)), strict=True):
    steps = ", ".join(result.answer.steps) if result.answer else "no answer"
    print(f"{problem.numbers} -> {problem.target}: {result.status}: {steps}")
