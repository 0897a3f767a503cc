"""Countdown: combine the numbers with + - * / so that the last result is the target.

    prompt   countdown:4,16,25,82=95
    steps    16-4=12
             25-12=13    (each input is used exactly once, division is exact, nothing is negative)
             82+13=95

The rules are those of Stream of Search (arXiv 2404.03683): inputs 1..99, targets 10..100. The
game on television has others: inputs of 100, targets of three digits, numbers that are left over.
"""

import re
from collections.abc import Sequence

from stepback_core.tasks.base import Checker, Reason, Verdict
from stepback_core.tasks.countdown.arithmetic import State, apply, reachable, replay
from stepback_core.tasks.countdown.problem import CountdownProblem

# Matched at the beginning of a step alone, as the published checker does.
_LAX_STEP = re.compile(r"([0-9]+)\s*([-+*/])\s*([0-9]+)\s*=\s*([0-9]+)", re.ASCII)


class Countdown(Checker[CountdownProblem]):
    """The Countdown task; see the module for its rules."""

    name = "countdown"
    problem_type = CountdownProblem
    # The bundled model takes back its first try at it: a first search shows what this is about.
    example = CountdownProblem(numbers=[13, 15, 48, 93], target=16)

    def prompt(self, problem: CountdownProblem) -> str:
        # Sorted: a model should not learn an order that means nothing.
        return f"{canonical(problem.numbers)}={problem.target}"

    def check(self, problem: CountdownProblem, steps: Sequence[str]) -> Verdict:
        reason = _refusal(problem, steps)
        return Verdict(reason is None, _lax(problem, steps), reason)

    def claims_goal(self, problem: CountdownProblem, steps: Sequence[str]) -> bool:
        """The last equation says that it makes the target."""
        return bool(steps) and steps[-1].rpartition("=")[2] == str(problem.target)

    def check_step(
        self, problem: CountdownProblem, prefix: Sequence[str], step: str
    ) -> Reason | None:
        after = apply(replay(problem.numbers, prefix)[0], step)
        return after if isinstance(after, Reason) else None

    def can_finish(self, problem: CountdownProblem, steps: Sequence[str]) -> bool:
        state = _follow(problem, steps)
        return not isinstance(state, Reason) and problem.target in reachable(state)

    def shortest_answer(self, problem: CountdownProblem) -> list[str]:
        """Each step uses up one number; the shortest step has digits alone."""
        return ["1+1=2"] * (len(problem.numbers) - 1)

    def state_key(self, problem: CountdownProblem, steps: Sequence[str]) -> State | None:
        """The numbers still to be used, sorted."""
        state = _follow(problem, steps)
        return None if isinstance(state, Reason) else state


def canonical(numbers: Sequence[int]) -> str:
    """Return the prompt without its target: the same for any order of the numbers."""
    return f"countdown:{','.join(map(str, sorted(numbers)))}"


def _follow(problem: CountdownProblem, steps: Sequence[str]) -> State | Reason:
    """The state after the steps, or why one of them is illegal."""
    state: State = tuple(sorted(problem.numbers))
    for step in steps:
        after = apply(state, step)
        if isinstance(after, Reason):
            return after
        state = after
    return state


def _refusal(problem: CountdownProblem, steps: Sequence[str]) -> Reason | None:
    """Tell why the strict rules refuse an answer; None if they accept it."""
    state = _follow(problem, steps)
    if isinstance(state, Reason):
        return state
    # The whole state: all numbers must be used up.
    return None if state == (problem.target,) else Reason.NOT_REACHED


def _lax(problem: CountdownProblem, steps: Sequence[str]) -> bool:
    """The verdict of the paper's published checker, for comparison with its numbers.

    It floors division, lets inputs go unused, drops every copy of a used number, and ignores what
    follows the result in a step.
    """
    left = list(problem.numbers)
    last: int | None = None
    for step in steps:
        match = _LAX_STEP.match(step)
        # Python refuses to read numbers of more than 4,300 digits, and takes long for shorter ones.
        if match is None or max(map(len, match.groups())) > 20:
            return False
        a, op, b, result = int(match[1]), match[2], int(match[3]), int(match[4])
        if a not in left or b not in left or (op == "/" and b == 0):
            return False
        last = a // b if op == "/" else {"+": a + b, "-": a - b, "*": a * b}[op]
        if last != result:
            return False
        left = [number for number in left if number not in (a, b)] + [result]
    return last == problem.target
