"""The first wrong step of each sampled path, judged by the task."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict

from stepback_client import TreeNode
from stepback_core.schemas import Outcome
from stepback_core.tasks import Reason
from stepback_training.data.model_errors import ModelError, is_teachable
from stepback_training.generators import ErrorKind, Generator
from stepback_training.generators.first_error import Mistake, first_mistake
from stepback_training.plugins import judge_of


class Tally(BaseModel):
    """Counts of paths by their end."""

    model_config = ConfigDict(extra="forbid")

    paths: int = 0
    solved: int = 0
    errors: dict[ErrorKind, int] = {}
    """Paths by the kind of their first wrong step."""
    noticed: dict[ErrorKind, int] = {}
    """Number of these that had the marker right after that step."""
    false_alarms: int = 0
    """Paths that end in the marker after right steps."""
    unended: int = 0
    """Paths without a wrong step that end too soon, or were cut."""

    @classmethod
    def total(cls, tallies: Iterable["Tally"]) -> "Tally":
        """Add up the tallies of many problems."""
        total = cls()
        for each in tallies:
            total.paths += each.paths
            total.solved += each.solved
            total.false_alarms += each.false_alarms
            total.unended += each.unended
            _add(total.errors, each.errors)
            _add(total.noticed, each.noticed)
        return total


def _add(total: dict[ErrorKind, int], counts: dict[ErrorKind, int]) -> None:
    for kind, count in counts.items():
        total[kind] = total.get(kind, 0) + count


class PathJudge:
    """Judges sampled paths by their task."""

    def __init__(self, task: Generator[Any]) -> None:
        self._task = task
        self._checker = judge_of(task)

    def count(self, problem: BaseModel, node: TreeNode, tally: Tally) -> Mistake | None:
        """Count one path; return its first wrong step, if there is one."""
        tally.paths += 1
        steps = self._whole_steps(problem, node)
        mistake = first_mistake(self._checker, problem, steps)
        if mistake is not None:
            kind = mistake.kind
            tally.errors[kind] = tally.errors.get(kind, 0) + 1
            tally.noticed[kind] = tally.noticed.get(kind, 0) + _is_noticed(node, steps, mistake)
        elif node.outcome is Outcome.ANSWER and self._checker.check(problem, steps).strict:
            tally.solved += 1
        elif node.outcome is Outcome.BACKTRACK:
            tally.false_alarms += 1
        else:
            tally.unended += 1
        return mistake

    def judge(self, problem: BaseModel, node: TreeNode, tally: Tally) -> ModelError | None:
        """Count one path of a training problem; return its first wrong step if it may be taught."""
        mistake = self.count(problem, node, tally)
        steps = self._whole_steps(problem, node)
        if mistake is None or not is_teachable(self._task, problem, steps[: mistake.index + 1]):
            return None
        return ModelError(
            task=self._task.name,
            problem=problem.model_dump(mode="json"),
            prefix=steps[: mistake.index],
            wrong_step=steps[mistake.index],
            follow_ups=self._teachable(problem, steps, mistake.index + 1),
            kind=mistake.kind,
            noticed=_is_noticed(node, steps, mistake),
        )

    def _whole_steps(self, problem: BaseModel, node: TreeNode) -> list[str]:
        """The steps that have ended."""
        # The last one of a path that was cut has not, as a rule; nor has one that the marker broke
        # off, which then is no step.
        if node.outcome is Outcome.UNFINISHED:
            return node.steps[:-1]
        if node.outcome is Outcome.BACKTRACK and node.steps:
            *before, last = node.steps
            try:
                if self._checker.check_step(problem, before, last) == Reason.MALFORMED_STEP:
                    return before
            except ValueError:
                return node.steps
        return node.steps

    def _teachable(self, problem: BaseModel, steps: list[str], first: int) -> list[str]:
        """The follow-ups from the first on, as far as they may stand in training data."""
        ends = range(first + 1, len(steps) + 1)
        end = next((e - 1 for e in ends if not is_teachable(self._task, problem, steps[:e])), None)
        return steps[first:end]


def _is_noticed(node: TreeNode, steps: list[str], mistake: Mistake) -> bool:
    return node.outcome is Outcome.BACKTRACK and mistake.index == len(steps) - 1


def summary(tally: Tally) -> str:
    """Return the tally in lines of text."""
    total = max(1, tally.paths)
    lines = [f"{tally.paths} paths: {100 * tally.solved / total:.1f} % solve their problem"]
    for kind, count in tally.errors.items():
        seen = 100 * tally.noticed.get(kind, 0) / count
        share = 100 * count / total
        lines.append(f"{share:.1f} % first go wrong by {kind}; the marker follows {seen:.1f} %")
    alarms, unended = 100 * tally.false_alarms / total, 100 * tally.unended / total
    lines.append(f"{alarms:.1f} % have the marker after right steps, {unended:.1f} % do not end")
    return "\n".join(lines)
