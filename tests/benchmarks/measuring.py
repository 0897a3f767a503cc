"""The held-out problems that the benchmarks share."""

from itertools import islice
from random import Random

from stepback_core.tasks import TASKS, Split
from stepback_core.tasks.countdown import CountdownProblem

TASK = TASKS["countdown"]
KINDS = (Split.TEST_SEEN, Split.TEST_NEW)


def problems(kind: Split, count: int) -> list[CountdownProblem]:
    return list(islice(TASK.stream(kind, Random(2026)), count))


def both_kinds(count: int) -> list[CountdownProblem]:
    """So many of each kind, one kind after the other."""
    return [problem for kind in KINDS for problem in problems(kind, count)]
