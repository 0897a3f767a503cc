"""What the benchmarks share: the problems, and intervals."""

from itertools import islice
from math import sqrt
from random import Random

from stepback_core.tasks import TASKS, Split
from stepback_core.tasks.countdown import CountdownProblem

TASK = TASKS["countdown"]
KINDS = (Split.TEST_SEEN, Split.TEST_NEW)


def problems(kind: Split, count: int) -> list[CountdownProblem]:
    return list(islice(TASK.stream(kind, Random(2026)), count))


def wilson(hits: int, total: int) -> tuple[float, float]:
    """95 % interval of a share, in percent."""
    z, share = 1.96, hits / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z * sqrt(share * (1 - share) / total + z * z / (4 * total**2)) / (1 + z * z / total)
    return 100 * (middle - half), 100 * (middle + half)
