"""Many problems from a file: a scheduler, a file of answers that only grows, the command."""

from stepback_client.batch.lines import GrowingLines, growing
from stepback_client.batch.scheduler import PATIENCE, Stopped, ask_each, finished

__all__ = [
    "PATIENCE",
    "GrowingLines",
    "Stopped",
    "ask_each",
    "finished",
    "growing",
]
