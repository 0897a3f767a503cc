"""The search as text, a line for each step, struck step and candidate. Pure."""

from collections.abc import Iterator, Sequence

from stepback_core.events import BacktrackEvent, CandidateEvent, ProgressEvent, StepEvent
from stepback_core.schemas import Outcome, TreeNode

_TAKEN_BACK = (Outcome.BACKTRACK, Outcome.ILLEGAL)


def lines_of_tree(tree: Sequence[TreeNode]) -> Iterator[str]:
    """The lines of a finished search, branch by branch."""
    paths: dict[int, list[str]] = {}
    for node in tree:
        kept = [] if node.parent is None else paths[node.parent][: node.kept_steps]
        path = paths[node.id] = kept + node.steps
        struck = path[-1:] if node.outcome in _TAKEN_BACK else []
        steps = node.steps[:-1] if struck else node.steps
        yield from map(_step, steps)
        yield from map(_strike, struck)
        if node.outcome is Outcome.ANSWER:
            yield _candidate(path)


class Reasoning:
    """The same lines from the events of a search that runs."""

    def __init__(self) -> None:
        # A branch's last step, which its rollback may strike out.
        self._held: list[str] = []

    def lines(self, event: ProgressEvent) -> list[str]:
        """The lines that an event completes."""
        if isinstance(event, StepEvent):
            # A step is held back until the next event: text that was streamed cannot be struck out.
            lines, self._held = self._held, [event.text]
            return list(map(_step, lines))
        held, self._held = self._held, []
        if isinstance(event, BacktrackEvent):
            struck = [step.text for step in event.struck]
            return [*map(_step, held if held != struck else []), *map(_strike, struck)]
        if isinstance(event, CandidateEvent):
            return [*map(_step, held), _candidate(event.answer.steps)]
        return list(map(_step, held))


def _step(text: str) -> str:
    return f"step {text}"


def _strike(text: str) -> str:
    return f"~~{text}~~"


def _candidate(steps: Sequence[str]) -> str:
    return f"candidate {' | '.join(steps)}"
