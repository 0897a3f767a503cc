"""The mistakes that a model really makes: read off the tree of a search, judged by the task."""

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import BaseModel

from stepback_core.schemas import Outcome, TreeNode
from stepback_core.tasks import Checker, Reason
from stepback_training.data.model_errors import is_teachable
from stepback_training.generators import Generator
from stepback_training.generators.first_error import first_mistake
from stepback_training.improve.outcomes import WrongStep
from stepback_training.plugins import judge_of


def wrong_steps(
    task: Generator[Any], problem: BaseModel, path: Sequence[str], tree: Iterable[TreeNode]
) -> list[WrongStep]:
    """Read the first wrong step of each branch of a search's tree, each once.

    Wrong is what is illegal or, where the task can tell, leaves the goal out of reach. The state
    before it must be one that the correct `path` goes through. Malformed steps teach nothing, and
    are skipped. So are steps that end as if in a held-out goal."""
    checker = judge_of(task)
    # By state, not by steps: the search may have come there another way.
    right = {checker.state_key(problem, path[:length]) for length in range(len(path))}
    whole: dict[int, list[str]] = {}
    found: dict[tuple[str, ...], WrongStep] = {}
    for node in tree:
        parent = whole.get(node.parent, []) if node.parent is not None else []
        steps = whole[node.id] = [*parent[: node.kept_steps], *node.steps]
        # The last step of a branch that was cut may be half of one.
        told = steps[:-1] if node.outcome is Outcome.UNFINISHED else steps
        wrong = _first_wrong(checker, problem, told)
        if wrong is None or not is_teachable(task, problem, [*wrong.prefix, wrong.step]):
            continue
        if checker.state_key(problem, wrong.prefix) in right:
            # Once each: a tree repeats what the model likes to do.
            found.setdefault((*wrong.prefix, wrong.step), wrong)
    return list(found.values())


def _first_wrong(
    checker: Checker[Any], problem: BaseModel, steps: Sequence[str]
) -> WrongStep | None:
    mistake = first_mistake(checker, problem, steps)
    if mistake is None:
        return None
    prefix, step = list(steps[: mistake.index]), steps[mistake.index]
    if checker.check_step(problem, prefix, step) == Reason.MALFORMED_STEP:
        return None
    return WrongStep(prefix=prefix, step=step)
