"""How many legal steps of deduction are dead ends, forward from the name and backward.

    python -m tests.benchmarks.dead_ends --file prosqa_valid.json --question question
    python -m tests.benchmarks.dead_ends --options '{"concepts": [15, 24]}' [--problems 300]

Of every place from which legal steps still lead to an answer: how many legal steps it has, and
how many of them leave no way to an answer. A place counts once, whatever ways lead to it.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from stepback_core.tasks import DeductionProblem
from stepback_core.tasks.deduction.graph import Graph, is_name
from stepback_core.tasks.deduction.proof import Direction, Place, can_finish, moves
from stepback_training.generators import GENERATORS
from tests.benchmarks.measuring import asked_or_drawn


def count(problem: DeductionProblem, direction: Direction) -> tuple[int, int, int]:
    """Places with a way to an answer, legal steps from there, and dead ends among these."""
    graph = Graph.of(problem)
    start = Place.before_the_first_step(graph)
    pending, seen = [start], {start}
    if not can_finish(graph, start):
        raise ValueError(f"no way leads from {graph.subject} to an answer: {problem.question}")
    legal = dead = 0
    for place in pending:
        for _, after in moves(graph, place, direction):
            legal += 1
            if not can_finish(graph, after):
                dead += 1
            elif after not in seen and not after.is_answered:
                seen.add(after)
                pending.append(after)
    return len(seen), legal, dead


def report(asked: Sequence[DeductionProblem]) -> None:
    print("| direction | legal steps a place | dead ends, % of them |\n| --- | --- | --- |")
    for direction in Direction:
        counted = [count(problem, direction) for problem in asked]
        places, legal, dead = (sum(column) for column in zip(*counted, strict=True))
        print(f"| {direction} | {legal / places:.1f} | {100 * dead / legal:.1f} ({dead}/{legal}) |")
    shared = sum(map(is_right_for_another, asked))
    print(f"\nright answers that another name leads to: {shared} of {len(asked)} questions")


def is_right_for_another(problem: DeductionProblem) -> bool:
    """Tell if sentences lead from another name, too, to an answer that the subject has."""
    graph = Graph.of(problem)
    others = [node for node in graph.edges if is_name(node) and node != graph.subject]
    right = graph.reachable([graph.subject]).intersection(graph.answers)
    return not right.isdisjoint(graph.reachable(others))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, help="questions; drawn ones if left out")
    parser.add_argument("--question", help="the column of the question")
    parser.add_argument("--options", type=json.loads, default={}, help="of the task, in JSON")
    parser.add_argument("--problems", type=int, default=300)
    given = parser.parse_args()
    task = GENERATORS["deduction"].with_options(given.options)
    asked = asked_or_drawn(task, given.problems, given.file, given.question)
    report([DeductionProblem.model_validate(problem) for problem in asked])
    return 0


if __name__ == "__main__":
    sys.exit(main())
