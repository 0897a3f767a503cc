"""Many problems from a file: a scheduler, a file of answers that only grows, a cluster."""

from stepback_client.batch.lines import GrowingLines, growing
from stepback_client.batch.scheduler import PATIENCE, Stopped, ask_each, finished
from stepback_client.batch.solvers import Solve, on_ray

__all__ = [
    "PATIENCE",
    "GrowingLines",
    "Solve",
    "Stopped",
    "ask_each",
    "finished",
    "growing",
    "on_ray",
]
