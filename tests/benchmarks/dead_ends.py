"""How many legal steps of a task are dead ends; of deduction in both directions.

    python -m tests.benchmarks.dead_ends --file prosqa_valid.json --question question
    python -m tests.benchmarks.dead_ends --options '{"concepts": [15, 24]}' [--problems 300]
    python -m tests.benchmarks.dead_ends --task knights

Of every state from which legal steps still lead to an answer: how many legal steps it has, and
how many of them leave no way to an answer. A state counts once, whatever ways lead to it.
`tests.benchmarks.task_rules` says which legal steps there are: of knights those about the first
person who has no role, of Sudoku those in the first empty cell.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel

from stepback_core.tasks import DeductionProblem
from stepback_core.tasks.deduction.graph import Graph, is_name
from stepback_core.tasks.deduction.proof import Direction
from stepback_training.generators import GENERATORS
from tests.benchmarks.measuring import asked_or_drawn
from tests.benchmarks.task_rules import Rules, rules_of


def count(rules: Rules) -> tuple[int, int, int]:
    """States with a way to an answer, legal steps from there, and dead ends among these."""
    after = _states(rules)
    good = _leading_to(filter(rules.is_goal, after), after)
    if rules.start not in good:
        raise ValueError("no way leads from the start to an answer")
    open_states = [state for state in good if not rules.is_goal(state)]
    legal = sum(len(after[state]) for state in open_states)
    dead = sum(each not in good for state in open_states for each in after[state])
    return len(open_states), legal, dead


def _states(rules: Rules) -> dict[Hashable, list[Hashable]]:
    """Every state that legal steps reach, with those that follow it; none follows a goal."""
    found: dict[Hashable, list[Hashable]] = {}
    pending = [rules.start]
    while pending:
        state = pending.pop()
        if state not in found:
            moves = [] if rules.is_goal(state) else rules.moves(state)
            found[state] = [following for _, following in moves]
            pending += found[state]
    return found


def _leading_to(
    goals: Iterable[Hashable], after: Mapping[Hashable, Sequence[Hashable]]
) -> set[Hashable]:
    """The goals, and every state from which legal steps lead to one."""
    before = defaultdict[Hashable, list[Hashable]](list)
    for state, following in after.items():
        for each in following:
            before[each].append(state)
    found = set(goals)
    pending = list(found)
    while pending:
        new = [state for state in before[pending.pop()] if state not in found]
        found.update(new)
        pending += new
    return found


def report(asked: Sequence[BaseModel]) -> None:
    """Print a row for each way to write the answers."""
    print("| answers | legal steps a state | dead ends, % of them |\n| --- | --- | --- |")
    questions = [problem for problem in asked if isinstance(problem, DeductionProblem)]
    for direction in Direction if questions else (Direction.FORWARD,):
        counted = [count(rules_of(problem, len, direction=direction)) for problem in asked]
        states, legal, dead = (sum(column) for column in zip(*counted, strict=True))
        answers = direction if questions else "all"
        print(f"| {answers} | {legal / states:.1f} | {100 * dead / legal:.1f} ({dead}/{legal}) |")
    if questions:
        shared = sum(map(is_right_for_another, questions))
        print(f"\nright answers that another name leads to: {shared} of {len(questions)} questions")


def is_right_for_another(problem: DeductionProblem) -> bool:
    """Tell if sentences lead from another name, too, to an answer that the subject has."""
    graph = Graph.of(problem)
    others = [node for node in graph.edges if is_name(node) and node != graph.subject]
    right = graph.reachable([graph.subject]).intersection(graph.answers)
    return not right.isdisjoint(graph.reachable(others))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=[*GENERATORS], default="deduction")
    parser.add_argument("--file", type=Path, help="questions of deduction; drawn ones if left out")
    parser.add_argument("--question", help="the column of the question")
    parser.add_argument("--options", type=json.loads, default={}, help="of the task, in JSON")
    parser.add_argument("--problems", type=int, default=300)
    given = parser.parse_args()
    task = GENERATORS[given.task].with_options(given.options)
    report(asked_or_drawn(task, given.problems, given.file, given.question))
    return 0


if __name__ == "__main__":
    sys.exit(main())
