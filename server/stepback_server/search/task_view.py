"""A task's word on the states of one problem, for a search that looks at steps. Pure."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from stepback_core.tasks import Checker
from stepback_core.trace import TraceCodec


@dataclass(frozen=True, slots=True)
class TaskView:
    """Generated ids in the eyes of the task."""

    task: Checker[Any]
    problem: Any
    codec: TraceCodec

    def state(self, ids: Sequence[int]) -> Hashable | None:
        return self.task.state_key(self.problem, self.codec.ended_steps(ids))
