"""Solvers without a model, with the same checker, under budgets in token equivalents.

    python -m tests.benchmarks.model_free [--problems 1000] [--sudoku9 150] [--budgets 40,160]
    python -m tests.benchmarks.model_free --file prosqa_valid.json --question question --model DIR
    python -m tests.benchmarks.model_free --deduction '{"concepts": [15, 24]}' --model DIR

The last two ask questions of deduction, from a file or drawn, and count in that model's tokens. No
answer needs a checker there: legal steps lead to the right one of the two answers alone.

Deduction is asked in both directions: forward from the name, and backward from the answers.

A step costs the tokens that the tokenizer writes it in, its separator among them; a path
that is given to the checker costs one more, for its end. Two solvers for every task:

random        random legal steps from the start, again and again, until the checker accepts a path
depth-first   every legal step in turn, in random order, each state once; for Sudoku in the first
              empty cell, or in the narrowest one, with the digits that conflict with nothing;
              for knights about the first person without a role, or first about one whose role
              follows at once

Neither knows more than the rules. Costs are by problem, so one run says what each budget solves.
"""

import argparse
import json
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from pydantic import BaseModel
from transformers import AutoTokenizer

from stepback_core.tasks import DeductionProblem, KnightsProblem, SudokuProblem
from stepback_core.tasks.deduction.graph import Graph
from stepback_core.tasks.deduction.proof import Direction
from stepback_training.generators import GENERATORS, Generator, Split
from tests.benchmarks.measuring import FINAL_SEED, asked_or_drawn, share, whole_numbers
from tests.benchmarks.task_rules import Move, Rules, rules_of
from tests.conftest import CHECKPOINT

BUDGETS = (125, 250, 500, 1000, 2100, 5400)
_END = 1
"""Tokens of the end of an answer."""


def random_paths(rules: Rules, rng: Random, most: int) -> int | None:
    """Tokens until a random legal path reaches the goal; None if it takes more than `most`."""
    spent = 0
    while spent < most:
        state = rules.start
        while not rules.is_goal(state) and (following := rules.moves(state)):
            if spent >= most:  # In a circle, for one.
                return None
            step, state = rng.choice(following)
            spent += rules.cost(step)
        spent += _END
        if rules.is_goal(state):
            return spent if spent <= most else None
    return None


def depth_first(rules: Rules, rng: Random, most: int, *, shuffled: bool = True) -> int | None:
    """Tokens until a depth-first search reaches the goal; None if it takes more than `most`."""
    seen = {rules.start}
    stack: list[Iterator[Move]] = [_ordered(rules, rules.start, rng, shuffled=shuffled)]
    spent = 0
    while stack and spent < most:
        step, state = next(stack[-1], ("", None))
        if state is None:
            stack.pop()
            continue
        spent += rules.cost(step)
        if rules.is_goal(state):
            return spent + _END if spent + _END <= most else None
        if state not in seen:
            seen.add(state)
            stack.append(_ordered(rules, state, rng, shuffled=shuffled))
    return None


def _ordered(rules: Rules, state: Hashable, rng: Random, *, shuffled: bool) -> Iterator[Move]:
    following = rules.moves(state)
    return iter(rng.sample(following, len(following)) if shuffled else following)


def step_costs(model: Path = CHECKPOINT) -> Callable[[str], int]:
    """Tokens of a step and the end of its line, by a model's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    known: dict[str, int] = {}

    def cost(step: str) -> int:
        if step not in known:
            known[step] = len(tokenizer.encode(f"{step}\n", add_special_tokens=False))
        return known[step]

    return cost


def table(name: str, costs: Sequence[int | None], budgets: Sequence[int] = BUDGETS) -> str:
    """A row: per cent solved within each budget, and the tokens of the largest one."""
    cells: list[str] = []
    for budget in budgets:
        solved = sum(cost is not None and cost <= budget for cost in costs)
        cells.append(share(solved, len(costs)))
    spent = [min(budgets[-1], cost or budgets[-1]) for cost in costs]
    middle = sorted(spent)[len(spent) // 2]
    return f"| {name} | {' | '.join(cells)} | {sum(spent) / len(spent):,.0f} | {middle:,} |"


def measure(
    asked: Sequence[BaseModel], cost: Callable[[str], int], most: int = BUDGETS[-1]
) -> dict[str, list[int | None]]:
    """Token equivalents that each problem takes, by solver."""

    def solved(solve: Callable[[Rules, Random, int], int | None], **how: Any) -> list[int | None]:
        return [solve(rules_of(p, cost, **how), Random(n), most) for n, p in enumerate(asked)]

    found = {"random legal steps": solved(random_paths), "depth-first": solved(depth_first)}
    if isinstance(asked[0], DeductionProblem):
        backward = {"direction": Direction.BACKWARD}
        found["random legal steps, backward"] = solved(random_paths, **backward)
        found["depth-first, backward"] = solved(depth_first, **backward)
    if isinstance(asked[0], SudokuProblem):
        found["depth-first, narrowest cell"] = solved(depth_first, narrowest=True)
    if isinstance(asked[0], KnightsProblem):
        found["depth-first, what follows first"] = solved(depth_first, narrowest=True)
    return found


Problems = tuple[str, Sequence[BaseModel]]
"""A name for the table, and what is asked."""


def _drawn(given: argparse.Namespace) -> Iterator[Problems]:
    def draw(task: Generator[Any], split: Split, count: int) -> list[BaseModel]:
        return list(islice(task.stream(split, Random(given.seed)), count))

    for split in (Split.TEST_SEEN, Split.TEST_NEW):
        name = split.removeprefix("test_")
        yield f"Countdown, {name}", draw(GENERATORS["countdown"], split, given.problems)
    for numbers in filter(None, given.numbers.split(",")):
        sized = GENERATORS["countdown"].with_options({"numbers": int(numbers)})
        for split in (Split.TEST_SEEN, Split.TEST_NEW):
            name = f"Countdown of {numbers}, {split.removeprefix('test_')}"
            yield name, draw(sized, split, given.problems)
    yield "mazes", draw(GENERATORS["maze"], Split.TEST_SEEN, given.problems)
    yield "knights", draw(GENERATORS["knights"], Split.TEST_SEEN, given.problems)
    yield "Sudoku 4x4", draw(GENERATORS["sudoku"], Split.TEST_SEEN, given.problems)
    if given.sudoku9:
        nine = GENERATORS["sudoku"].with_options({"size": 9, "givens": [30, 50]})
        yield "Sudoku 9x9", draw(nine, Split.TEST_SEEN, given.sudoku9)


def _deductions(given: argparse.Namespace) -> Iterator[Problems]:
    task = GENERATORS["deduction"].with_options(given.deduction or {})
    asked = asked_or_drawn(task, given.problems, given.file, given.question, given.seed)
    for each in asked:
        graph = Graph.of(DeductionProblem.model_validate(each))
        both = graph.reachable([graph.subject]).issuperset(graph.answers)
        assert not both, f"{graph.subject}: its sentences lead to both answers"
    yield given.file.stem if given.file else task.name, asked


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=1000, help="of each kind")
    parser.add_argument("--numbers", default="2,3,5,6", help="other sizes of Countdown")
    parser.add_argument("--sudoku9", type=int, default=150, help="puzzles of 9x9")
    parser.add_argument("--seed", type=int, default=FINAL_SEED, help="of the problems")
    parser.add_argument("--budgets", type=whole_numbers, help="in tokens, with commas between them")
    of_deduction = parser.add_mutually_exclusive_group()
    of_deduction.add_argument("--file", type=Path, help="questions of deduction")
    of_deduction.add_argument("--deduction", type=json.loads, help="options of drawn ones, in JSON")
    parser.add_argument("--question", help="the column of the question")
    parser.add_argument("--model", type=Path, default=CHECKPOINT, help="whose tokenizer counts")
    given = parser.parse_args()
    cost = step_costs(given.model)
    is_deduction = given.file is not None or given.deduction is not None
    usual = (40, 160, 640) if is_deduction else BUDGETS
    budgets = tuple(sorted(given.budgets)) if given.budgets else usual
    heads = [f"{budget:,}" for budget in budgets]
    print(f"| task | solver | {' | '.join(heads)} | mean | median |")
    print("| --- " * (len(heads) + 4) + "|")
    for name, asked in _deductions(given) if is_deduction else _drawn(given):
        for solver, costs in measure(asked, cost, budgets[-1]).items():
            print(f"| {name} {table(solver, costs, budgets)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
