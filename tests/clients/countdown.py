"""A checker of Countdown of its own: each number once, whole positive results, the target last."""

import re
from collections import Counter
from typing import Any

_STEP = re.compile(r"(\d+)([-+*/])(\d+)=(\d+)")


def process_results(problem: dict[str, Any], answers: list[str]) -> dict[str, float]:
    """Judge the one answer to a problem."""
    return {"acc": float(reaches(problem["numbers"], problem["target"], answers[0]))}


def reaches(numbers: list[int], target: int, answer: str) -> bool:
    left = Counter(numbers)
    for line in answer.split("\n"):
        step = _STEP.fullmatch(line)
        if step is None:
            return False
        first, sign, second, result = step.groups()
        a, b, c = int(first), int(second), int(result)
        left.subtract([a, b])
        if min(left.values()) < 0 or c != _value(a, sign, b):
            return False
        left[c] += 1
    return list(left.elements()) == [target]


def _value(a: int, sign: str, b: int) -> int | None:
    if sign == "/":
        return a // b if b and a % b == 0 else None
    return {"+": a + b, "-": a - b, "*": a * b}[sign]
