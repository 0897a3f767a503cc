"""A task's word on the states of one problem, for a search that looks at steps. Pure."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from stepback_core.tasks import Task, Verdict
from stepback_core.trace import TraceCodec


@dataclass(frozen=True, slots=True)
class TaskView:
    """Generated ids, up to where a step ends, in the eyes of the task."""

    task: Task[Any]
    problem: Any
    codec: TraceCodec

    def judge(self, steps: Sequence[str]) -> Verdict:
        return self.task.check(self.problem, steps)

    def is_legal(self, ids: Sequence[int]) -> bool:
        *before, last = self._steps(ids)
        return self.task.check_step(self.problem, before, last) is None

    def key(self, ids: Sequence[int]) -> Hashable | None:
        return self.task.state_key(self.problem, self._steps(ids))

    def _steps(self, ids: Sequence[int]) -> list[str]:
        """The steps that have ended; a token that straddles a boundary has begun another one."""
        steps, rest = self.codec.split_steps(ids)
        return [*steps, rest] if rest and ids[-1] == self.codec.tokens.end_id else steps
