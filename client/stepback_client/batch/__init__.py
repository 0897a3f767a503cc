"""Many problems from a file: a scheduler, a file of answers that only grows, a cluster."""

from stepback_client.batch.file_lock import lock
from stepback_client.batch.line_files import json_lines
from stepback_client.batch.lines import GrowingLines, growing
from stepback_client.batch.scheduler import PATIENCE, Stopped, ask_each, finished
from stepback_client.batch.solvers import Solve, on_ray
from stepback_client.batch.terminal import (
    INTERRUPTED,
    add_cluster_flags,
    drain_on_signals,
    positive,
    say,
    say_missing,
)

__all__ = [
    "INTERRUPTED",
    "PATIENCE",
    "GrowingLines",
    "Solve",
    "Stopped",
    "add_cluster_flags",
    "ask_each",
    "drain_on_signals",
    "finished",
    "growing",
    "json_lines",
    "lock",
    "on_ray",
    "positive",
    "say",
    "say_missing",
]
